"""Measure every subject at every size, interleaved, and boil the rounds down to estimates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from multitask_benchmarks.load import Measurement
from multitask_benchmarks.results import Measured, Metric
from multitask_benchmarks.stats import (
    LEAST_CALLS,
    Estimate,
    RoundStats,
    estimate,
    ratio,
    round_stats,
)
from multitask_benchmarks.subjects import Item_contra, Timed

WARM_UP_S = 0.3
Step = TypeVar("Step")
_LATENCIES = ("p50_ms", "p95_ms", "p99_ms", "mean_ms")


@dataclass
class Cell:
    """One subject at one size: a value of each kind for every round.

    Where the subject is a server its own counters are added: texts in a batch, and the mean time
    that a text waited in its queue and was computed. CPU milliseconds a text are those of the
    server's processes and of the callers, memory is the server's, where they were watched.
    """

    subject: str
    size: int
    rounds: list[RoundStats] = field(default_factory=list)
    mean_batches: list[float] = field(default_factory=list)
    queue_ms: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)
    server_cpu_ms: list[float] = field(default_factory=list)
    client_cpu_ms: list[float] = field(default_factory=list)
    server_rss_mib: list[float] = field(default_factory=list)
    server_pss_mib: list[float] = field(default_factory=list)

    def add(self, measured: Measurement) -> None:
        """Append one round."""
        self.rounds.append(round_stats(measured.latencies_ms, measured.texts, measured.seconds))
        server = measured.server
        if server and server.executions:
            self.mean_batches.append(server.inferences / server.executions)
            self.queue_ms.append(server.queue_ms / server.inferences)
            self.compute_ms.append(server.compute_ms / server.inferences)
        if measured.server_cpu_s is not None:
            self.server_cpu_ms.append(1e3 * measured.server_cpu_s / measured.texts)
        if measured.client_cpu_s is not None:
            self.client_cpu_ms.append(1e3 * measured.client_cpu_s / measured.texts)
        if measured.server_rss_mib is not None and measured.server_pss_mib is not None:
            self.server_rss_mib.append(measured.server_rss_mib)
            self.server_pss_mib.append(measured.server_pss_mib)

    def values(self, name: str) -> list[float]:
        """One number a round, by its name in RoundStats."""
        return [getattr(one, name) for one in self.rounds]

    def estimate(self, name: str) -> Estimate | None:
        """Of one number by its name in RoundStats; None for a percentile of too few calls."""
        if min(self.values("calls")) < LEAST_CALLS.get(name, 1):
            return None
        return estimate(self.values(name))

    def measured(self, size: str = "size", rate: str = "texts_per_s") -> Measured:
        """For the result file; `size` and `rate` are what the scenario calls these two."""
        metrics = {
            name: Metric.of(self.values(name), "ms", "lower")
            for name in _LATENCIES
            if self.estimate(name)
        }
        metrics["calls"] = Metric.of(self.values("calls"), "calls")
        metrics[rate] = Metric.of(self.values("texts_per_s"), "1/s", "higher")
        watched = {
            "mean_batch": Metric.of(self.mean_batches, "texts") if self.mean_batches else None,
            "queue_ms": _lower(self.queue_ms),
            "compute_ms": _lower(self.compute_ms),
            "server_cpu_ms_a_text": _lower(self.server_cpu_ms),
            "client_cpu_ms_a_text": _lower(self.client_cpu_ms),
            "server_rss_mib": _lower(self.server_rss_mib, "MiB"),
            "server_pss_mib": _lower(self.server_pss_mib, "MiB"),
        }
        metrics |= {name: one for name, one in watched.items() if one}
        return Measured(self.subject, {size: self.size}, metrics)


@dataclass(frozen=True)
class Result:
    """A cell's estimates; speedup is throughput against the baseline at the same size.

    p95_ms, p99_ms: None where a round has too few calls for them.
    """

    cell: Cell
    p50_ms: Estimate
    p95_ms: Estimate | None
    p99_ms: Estimate | None
    texts_per_s: Estimate
    speedup: Estimate | None

    @property
    def noisy(self) -> bool:
        """Whether the rounds scatter too much to lean on."""
        estimates = (self.texts_per_s, self.p50_ms, self.speedup)
        return any(one.noisy for one in estimates if one)


def measure_rounds(
    subjects: Sequence[Timed[Item_contra]],
    texts: Sequence[Item_contra],
    sizes: Sequence[int],
    *,
    rounds: int,
    seconds: float,
    advance: Callable[[], None] = lambda: None,
) -> list[Cell]:
    """Measure for `seconds` every subject at every size, in every round; `advance` follows each."""
    pairs = [(subject, Cell(subject.name, size)) for size in sizes for subject in subjects]
    for subject, cell in pairs:
        subject.measure(texts, cell.size, min(seconds, WARM_UP_S))
    for subject, cell in interleaved(pairs, rounds):
        cell.add(subject.measure(texts, cell.size, seconds))
        advance()
    return [cell for _, cell in pairs]


def interleaved(steps: Sequence[Step], rounds: int) -> Iterator[Step]:
    """All steps once a round; every other round backwards, so that a drift favours nobody."""
    for number in range(rounds):
        yield from steps[:: 1 if number % 2 == 0 else -1]


def summarise(cells: Sequence[Cell], baseline: str) -> list[Result]:
    """Estimates of every cell; `baseline` names the subject that others are compared with."""
    bases = {cell.size: cell.values("texts_per_s") for cell in cells if cell.subject == baseline}
    return [
        _result(cell, None if cell.subject == baseline else bases.get(cell.size)) for cell in cells
    ]


def _result(cell: Cell, base: Sequence[float] | None) -> Result:
    rates = cell.values("texts_per_s")
    return Result(
        cell,
        p50_ms=estimate(cell.values("p50_ms")),
        p95_ms=cell.estimate("p95_ms"),
        p99_ms=cell.estimate("p99_ms"),
        texts_per_s=estimate(rates),
        speedup=ratio(rates, base) if base else None,
    )


def _lower(values: Sequence[float], unit: str = "ms") -> Metric | None:
    return Metric.of(values, unit, "lower") if values else None
