"""The timed rounds, interleaved, and what they say as metrics of a result file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from multitask_benchmarks.engines.bench import Measurer, Sample
from multitask_benchmarks.engines.catalogue import Subject
from multitask_benchmarks.engines.flops import ModelShape
from multitask_benchmarks.engines.points import Point
from multitask_benchmarks.engines.survey import Cell, Skip
from multitask_benchmarks.results import MACHINE_PEAK, Better, Measured, Metric
from multitask_benchmarks.rounds import interleaved
from multitask_benchmarks.stats import LEAST_CALLS, round_stats
from multitask_core.errors import MultiTaskError

_UNITS: dict[str, tuple[str, Better]] = {
    "rows_per_s": ("1/s", "higher"),
    "tokens_per_s": ("1/s", "higher"),
    "gflop_per_s": ("GFLOP/s", "higher"),
    "utilisation": ("", "higher"),
    "p50_ms": ("ms", "lower"),
    "p95_ms": ("ms", "lower"),
    "p99_ms": ("ms", "lower"),
    "mean_ms": ("ms", "lower"),
    "cpu_ms_a_call": ("ms", "lower"),
    "padding_share": ("", "lower"),
    "calls": ("", ""),
}


class Peaks(Protocol):
    """Measures what the machine reaches in a precision, GFLOP/s."""

    def rate(self, precision: str, seconds: float) -> float:
        """For about so many seconds."""
        ...


@dataclass(eq=False)
class PeakCell:
    """The machine's peak in one precision, beside a point's cells; GFLOP/s of each round."""

    point: Point
    precision: str
    rates: list[float] = field(default_factory=list)

    def measured(self) -> Measured:
        """For the result file."""
        metrics = {"gflop_per_s": Metric.of(self.rates, *_UNITS["gflop_per_s"])}
        return Measured(f"{MACHINE_PEAK} {self.precision}", self.point.to_dict(), metrics)


class Rounds:
    """Times cells, and beside them the machine's peak in their precisions."""

    def __init__(
        self, cells: Sequence[Cell], subjects: Mapping[Subject, Measurer], peaks: Peaks
    ) -> None:
        self._subjects, self._gemms = subjects, peaks
        self.cells = list(cells)
        self.peaks: list[PeakCell] = []
        self.skipped: list[Skip] = []
        self._steps: list[Cell | PeakCell] = []
        for point in dict.fromkeys(cell.work.point for cell in cells):
            here = [cell for cell in cells if cell.work.point == point]
            precisions = sorted({cell.subject.precision for cell in here})
            beside = [PeakCell(point, one) for one in precisions]
            self.peaks += beside
            self._steps += [*beside, *here]

    @property
    def steps(self) -> int:
        """Of one round."""
        return len(self._steps)

    def run(self, rounds: int, seconds: float, peak_s: float, advance: Callable[[], None]) -> None:
        """All steps in every round; one that fails is left out from then on."""
        for step in interleaved(self._steps, rounds):
            if isinstance(step, Cell) and step in self.cells:
                self._time(step, seconds)
            elif isinstance(step, PeakCell) and step in self.peaks:
                self._rate(step, peak_s)
            advance()

    def measured(self, shape: ModelShape | None) -> list[Measured]:
        """Every whole cell, the machine's peaks behind them; no GFLOP/s without a shape."""
        rates = {(one.point, one.precision): one.rates for one in self.peaks}
        found = [
            _measured(cell, shape, rates.get((cell.work.point, cell.subject.precision)))
            for cell in self.cells
        ]
        return [*found, *(one.measured() for one in self.peaks)]

    def _time(self, cell: Cell, seconds: float) -> None:
        try:
            sample = self._subjects[cell.subject].measure(str(cell.work.point), seconds)
            cell.samples.append(sample)
        except MultiTaskError as error:
            self.cells.remove(cell)
            self.skipped.append(Skip(cell.subject.name, str(cell.work.point), str(error)))

    def _rate(self, cell: PeakCell, seconds: float) -> None:
        try:
            cell.rates.append(self._gemms.rate(cell.precision, seconds))
        except MultiTaskError as error:  # say, no product of this precision on this device
            self.peaks.remove(cell)
            name = f"{MACHINE_PEAK} {cell.precision}"
            self.skipped.append(Skip(name, str(cell.point), str(error)))


def _measured(cell: Cell, shape: ModelShape | None, peaks: Sequence[float] | None) -> Measured:
    """A cell's metrics; utilisation only where the peak of each round is known.

    Memory is that of the warm-up, once: in the rounds an engine holds what larger points took, too.
    """
    rounds = [_figures(cell, sample, shape) for sample in cell.samples]
    if peaks and shape:
        for figures, peak in zip(rounds, peaks, strict=True):
            figures["utilisation"] = figures["gflop_per_s"] / peak
    metrics = {
        name: Metric.of([figures[name] for figures in rounds], *unit)
        for name, unit in _UNITS.items()
        if all(name in figures for figures in rounds)
    }
    memory = {"peak_mib": cell.warm.peak_mib, "device_mib": cell.warm.device_mib}
    for name, mib in memory.items():
        if name == "peak_mib" or cell.subject.device == "cuda":
            metrics[name] = Metric.of([mib], "MiB", "lower")
    return Measured(cell.subject.name, cell.work.point.to_dict(), metrics)


def _figures(cell: Cell, sample: Sample, shape: ModelShape | None) -> dict[str, float]:
    """One round in the units of the result file."""
    batches = cell.work.batches
    lengths = [len(row) for rows in batches for row in rows]
    rows = len(lengths) * sample.passes
    stats = round_stats(sample.latencies_ms, rows, sample.seconds)
    figures = {
        "rows_per_s": stats.texts_per_s,
        "tokens_per_s": cell.work.pieces * sample.passes / sample.seconds,
        "p50_ms": stats.p50_ms,
        "mean_ms": stats.mean_ms,
        "cpu_ms_a_call": 1e3 * sample.cpu_s / stats.calls,
        "padding_share": 1 - cell.work.pieces / sum(cell.warm.slots),
        "calls": float(stats.calls),
    }
    if shape:
        figures["gflop_per_s"] = shape.flops(lengths) * sample.passes / sample.seconds / 1e9
    for name, least in LEAST_CALLS.items():
        if stats.calls >= least:
            figures[name] = getattr(stats, name)
    return figures
