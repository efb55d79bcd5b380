"""Where a saturated server's CPU goes, and how far it is from the encoder's own limit.

    python -m multitask_benchmarks serving profile --repository triton_models \\
        --artifact artifacts/demo --data data/demo/test.jsonl

The server is kept busy by 32 and by 64 callers. CPU time is read process by process; what the
encoder took of it comes from the server's own counters. In turns with it the same graph runs in
this process, without server, tokenizer or decoding, on the same sentences in batches of the mean
size that the server reached.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import interval, make_table
from multitask_benchmarks.results import Measured, Metric, Point
from multitask_benchmarks.serving import counters
from multitask_benchmarks.serving.alone import serve_alone
from multitask_benchmarks.serving.closed import for_seconds, run_closed
from multitask_benchmarks.serving.limit import Encoder
from multitask_benchmarks.serving.processes import by_name, tree
from multitask_benchmarks.serving.served import Served, parse_repository
from multitask_benchmarks.serving.servers import add_check_arguments
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_benchmarks.stats import Estimate, estimate
from multitask_benchmarks.texts import read_texts

ALONE, SERVER = "encoder alone", "server"
_WARM_UP_S = 1.0
# The text model adds its counts to the page once a second.
_PUBLISH_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving profile`."""
    add = parser.add_argument
    add_check_arguments(parser)
    add("--artifact", type=Path, required=True, help="what the repository was written from")
    add("--sizes", type=int, nargs="+", default=[32, 64], metavar="N",
        help="concurrent callers (default: 32 64)")  # fmt: skip
    add("--rounds", type=int, default=5, help="server and encoder in turn (default: %(default)s)")
    add("--seconds", type=float, default=5.0, help="each of both, in each round [%(default)s]")


@dataclass
class Profile:
    """Every round's values at one number of callers; CPU in seconds, rates in texts a second."""

    callers: int
    texts: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_s: list[dict[str, float]] = field(default_factory=list)
    client_cpu_s: list[float] = field(default_factory=list)
    counted: list[dict[str, float]] = field(default_factory=list)
    batches: list[float | None] = field(default_factory=list)
    encoder_rates: list[dict[str, float]] = field(default_factory=list)

    @property
    def limits(self) -> list[float]:
        """The encoder's best rate in every round."""
        return [max(rates.values()) for rates in self.encoder_rates]

    def outside(self) -> list[float]:
        """Share of the server's CPU outside the encoder; empty where it does not count that."""
        return [
            1 - counted[counters.ENCODER_CPU] / sum(spent.values())
            for spent, counted in zip(self.cpu_s, self.counted, strict=True)
            if counted.get(counters.ENCODER_CPU) and sum(spent.values())
        ]

    def of_limit(self) -> Estimate:
        """The server's rate as a part of the encoder's own, round by round."""
        pairs = zip(self.rates, self.limits, strict=True)
        return estimate([rate / alone for rate, alone in pairs])

    def measured(self) -> list[Measured]:
        """For the result file: the server, and its encoder alone as the baseline."""
        point: Point = {"callers": self.callers}
        outside = self.outside()
        server = {
            "texts_per_s": Metric.of(self.rates, "1/s", "higher"),
            "server_cpu_ms_a_text": self._cpu_ms([sum(one.values()) for one in self.cpu_s]),
            "client_cpu_ms_a_text": self._cpu_ms(self.client_cpu_s),
        }
        if outside:
            server["outside_encoder_share"] = Metric.of(outside, "", "lower")
        alone = {"texts_per_s": Metric.of(self.limits, "1/s", "higher")}
        return [Measured(ALONE, point, alone), Measured(SERVER, point, server)]

    def to_dict(self) -> dict[str, Any]:
        """What of the rounds is no single figure, JSON-ready."""
        names = ("callers", "texts", "cpu_s", "counted", "batches", "encoder_rates")
        return {name: getattr(self, name) for name in names}

    def _cpu_ms(self, seconds: Sequence[float]) -> Metric:
        pairs = zip(seconds, self.texts, strict=True)
        return Metric.of([1e3 * one / texts for one, texts in pairs], "ms", "lower")


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "sizes", "rounds", "seconds", "texts")
    name, repository = parse_repository(options.repository)
    texts = read_texts(options.data, options.texts)
    with serve_alone(name, repository, texts, options) as (served, about):
        encoder = Encoder(options.artifact, served.facts, texts)
        profiles = measure(served, encoder, texts, options)
    record = make_record(
        options,
        baseline=ALONE,
        measurements=[row for one in profiles for row in one.measured()],
        details={
            **about,
            "encoder": encoder.to_dict(),
            "rounds": [one.to_dict() for one in profiles],
        },
    )
    return finish(options, record, tables(profiles), brief(profiles))


def measure(
    served: Served, encoder: Encoder, texts: Sequence[str], options: argparse.Namespace
) -> list[Profile]:
    """All rounds at all numbers of callers."""
    profiles = [Profile(callers) for callers in options.sizes]
    endpoint = GrpcEndpoint(served.url, texts)
    run_closed(endpoint, for_seconds(len(texts), _WARM_UP_S), max(options.sizes)).stats()
    time.sleep(_PUBLISH_S)
    with tqdm(total=options.rounds * len(profiles), desc="profile", leave=False) as bar:
        for _ in range(options.rounds):
            for profile in profiles:
                _round(profile, served, endpoint, encoder, options.seconds)
                bar.update()
    return profiles


def _round(
    profile: Profile,
    served: Served,
    endpoint: GrpcEndpoint,
    encoder: Encoder,
    seconds: float,
) -> None:
    before, counted = _cpu(served.pid), _counters(served)
    calls = run_closed(endpoint, for_seconds(len(endpoint.texts), seconds), profile.callers)
    after, stats = _cpu(served.pid), calls.stats()
    profile.texts.append(len(calls))
    profile.rates.append(stats.texts_per_s)
    profile.client_cpu_s.append(calls.client_cpu_s)
    profile.cpu_s.append({name: after[name] - before.get(name, 0.0) for name in after})
    time.sleep(_PUBLISH_S)
    profile.counted.append(counters.added(counted, _counters(served)))
    batch = counters.mean_batch(profile.counted[-1])
    profile.batches.append(batch)
    profile.encoder_rates.append(encoder.rates(max(1, round(batch or profile.callers)), seconds))


def _cpu(pid: int) -> dict[str, float]:
    return {name: one.cpu_s for name, one in by_name(tree(pid)).items()}


def _counters(served: Served) -> dict[str, float]:
    return counters.read_counters(served.metrics_url) if served.metrics_url else {}


def tables(profiles: Sequence[Profile]) -> list[Table]:
    """Rates, and CPU by process."""
    rates = [
        (
            f"{one.callers} callers", interval(estimate(one.rates)),
            interval(estimate(one.limits)), interval(one.of_limit()),
            _optional(one.outside()), _mean([batch for batch in one.batches if batch]),
        )
        for one in profiles
    ]  # fmt: skip
    spent = [
        (f"{one.callers} callers", name, 1e3 * seconds / sum(one.texts))
        for one in profiles
        for name, seconds in _spent(one).items()
    ]
    columns = ("load", "server texts/s", "encoder alone", "of its limit", "CPU outside it", "batch")
    return [
        make_table("The server against its own encoder", columns, rates,
            "the encoder alone: the same graph in one process, batches of the same mean size"),
        make_table("CPU milliseconds a text, by process", ("load", "process", "ms"), spent),
    ]  # fmt: skip


def brief(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """The line for programs: medians."""
    return [
        {
            "callers": one.callers,
            "texts_per_s": round(estimate(one.rates).median, 1),
            "of_encoder_limit": round(one.of_limit().median, 3),
            "outside_encoder": _median(one.outside()),
        }
        for one in profiles
    ]


def _spent(profile: Profile) -> dict[str, float]:
    """CPU seconds of all rounds by process, the encoder's part of the stubs', and the callers'."""
    spent = {name: sum(one.get(name, 0.0) for one in profile.cpu_s) for name in profile.cpu_s[0]}
    encoder_s = sum(one.get(counters.ENCODER_CPU, 0.0) for one in profile.counted)
    return {**spent, "of these: the encoder": encoder_s, "the callers": sum(profile.client_cpu_s)}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _optional(values: Sequence[float]) -> str:
    return interval(estimate(values)) if values else "–"


def _median(values: Sequence[float]) -> float | None:
    return round(estimate(values).median, 3) if values else None
