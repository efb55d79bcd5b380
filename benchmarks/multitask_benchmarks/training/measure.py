"""Rounds of all subjects in turn, and the estimates after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from multitask_benchmarks.results import Better, Measured, Metric, Point
from multitask_benchmarks.stats import Estimate, estimate, ratio
from multitask_benchmarks.training.jobs import SIDES, TRAINER, Report, Work


@dataclass(frozen=True)
class Subject:
    """A side with a precision and a number of processes."""

    side: str
    precision: str
    processes: int

    @property
    def group(self) -> tuple[str, int]:
        """What the subjects that are compared have in common."""
        return self.precision, self.processes

    def __str__(self) -> str:
        return f"{self.side}, precision {self.precision}, {self.processes} process(es)"


@dataclass(frozen=True)
class Round:
    """One run, all its processes together; peak_mib and device_mib sum what each took at most."""

    seconds: float
    cpu_s: float
    peak_mib: float
    work: Work
    device_mib: float = 0.0

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Round:
        """Add up the processes; they step together, so the slowest gives the time."""
        return cls(
            max(one.seconds for one in reports),
            sum(one.cpu_s for one in reports),
            sum(one.peak_mib for one in reports),
            Work.total([one.work for one in reports]),
            sum(one.device_mib for one in reports),
        )

    @property
    def tokens_per_s(self) -> float:
        """Real tokens, without padding."""
        return self.work.tokens / self.seconds


# Value of a round, unit, and which direction is better.
_METRICS: dict[str, tuple[Callable[[Round], float], str, Better]] = {
    "tokens_per_s": (lambda one: one.tokens_per_s, "1/s", "higher"),
    "windows_per_s": (lambda one: one.work.windows / one.seconds, "1/s", "higher"),
    "cpu_ms_per_1000_tokens": (lambda one: 1e6 * one.cpu_s / one.work.tokens, "ms", "lower"),
    "peak_mib": (lambda one: one.peak_mib, "MiB", "lower"),
    "device_mib": (lambda one: one.device_mib, "MiB", "lower"),
    "padding_share": (lambda one: 1 - one.work.tokens / one.work.slots, "", "lower"),
}


@dataclass
class Cell:
    """One subject's rounds."""

    subject: Subject
    rounds: list[Round] = field(default_factory=list)

    def values(self, value: Callable[[Round], float]) -> list[float]:
        """One number a round."""
        return [value(one) for one in self.rounds]


@dataclass(frozen=True)
class Result:
    """A cell's estimates; speedup: tokens/s against the Trainer, in the same rounds.

    device_mib: None without a GPU.
    """

    cell: Cell
    tokens_per_s: Estimate
    windows_per_s: Estimate
    cpu_ms_per_1000_tokens: Estimate
    peak_mib: Estimate
    device_mib: Estimate | None
    padding: Estimate
    speedup: Estimate | None

    @property
    def noisy(self) -> bool:
        """Whether the rounds scatter too much to lean on: the ratio's, where there is one."""
        return (self.speedup or self.tokens_per_s).noisy

    def measured(self) -> Measured:
        """For the result file."""
        cell = self.cell
        metrics = {
            name: Metric.of(cell.values(value), unit, better)
            for name, (value, unit, better) in _METRICS.items()
            if name != "device_mib" or self.device_mib
        }
        subject = cell.subject
        point: Point = {"precision": subject.precision, "processes": subject.processes}
        return Measured(subject.side, point, metrics)

    def to_dict(self) -> dict[str, Any]:
        """Raw rounds with the work that was done in them, JSON-ready."""
        return {
            **asdict(self.cell.subject),
            "rounds": [asdict(one) for one in self.cell.rounds],
        }


def all_subjects(precisions: Iterable[str], processes: Iterable[int]) -> list[Subject]:
    """Every side at every precision and number of processes, those that are compared together."""
    return [
        Subject(side, precision, count)
        for count in processes
        for precision in precisions
        for side in SIDES
    ]


def measure(
    subjects: Sequence[Subject],
    train: Callable[[Subject], Sequence[Report]],
    rounds: int,
) -> list[Cell]:
    """Run every subject once in each round.

    Every other round runs backwards, so that a drift of the machine favours nobody.
    """
    cells = [Cell(subject) for subject in subjects]
    for number in range(rounds):
        for cell in cells[:: 1 if number % 2 == 0 else -1]:
            cell.rounds.append(Round.of(train(cell.subject)))
    return cells


def summarise(cells: Sequence[Cell]) -> list[Result]:
    """Estimates of every cell."""
    bases = {cell.subject.group: cell for cell in cells if cell.subject.side == TRAINER}
    return [_result(cell, bases[cell.subject.group]) for cell in cells]


def _result(cell: Cell, base: Cell) -> Result:
    found = {name: cell.values(value) for name, (value, _, _) in _METRICS.items()}
    trainer = base.values(lambda one: one.tokens_per_s)
    return Result(
        cell,
        tokens_per_s=estimate(found["tokens_per_s"]),
        windows_per_s=estimate(found["windows_per_s"]),
        cpu_ms_per_1000_tokens=estimate(found["cpu_ms_per_1000_tokens"]),
        peak_mib=estimate(found["peak_mib"]),
        device_mib=estimate(found["device_mib"]) if any(found["device_mib"]) else None,
        padding=estimate(found["padding_share"]),
        speedup=None if cell is base else ratio(found["tokens_per_s"], trainer),
    )
