"""Rounds of all subjects in turn, the check before them, and the estimates after them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from multitask_benchmarks.results import Better, Measured, Metric, Point
from multitask_benchmarks.stats import Estimate, estimate, ratio
from multitask_benchmarks.training.jobs import SIDES, TRAINER, Report, Work
from multitask_core.errors import MultiTaskError, ParityError

# Losses and gradient norms of the two sides may differ by so much of their size: rows of a batch
# stand in another order, and the Trainer's losses come with four decimals.
TOLERANCE = {"no": 1e-3, "bf16": 2e-2, "fp16": 2e-2}
# Updates that are compared. fp16 leaves out its first ones until its scale fits, and needs more.
CHECKED, LEAST_CHECKED = 3, 2
CHECK_UPDATES = {"no": CHECKED, "bf16": CHECKED, "fp16": CHECKED + 7}

log = logging.getLogger(__name__)


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


@dataclass
class Checked:
    """What the check left. agreement: how far sides differ. refused: why a group is not timed."""

    subjects: list[Subject] = field(default_factory=list)
    agreement: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def check(subjects: Sequence[Subject], train: Callable[[Subject], Sequence[Report]]) -> Checked:
    """Compare the sides' first updates, group by group; a group that fails costs no other.

    Raises the first group's error where none is left.
    """
    checked, errors = Checked(), []
    for precision, processes in dict.fromkeys(one.group for one in subjects):
        group = [one for one in subjects if one.group == (precision, processes)]
        try:
            checked.agreement += require_same({one: train(one) for one in group})
        except MultiTaskError as error:
            name = f"precision {precision}, {processes} process(es)"
            log.warning("%s is left out: %s", name, error)
            checked.refused[name] = str(error).partition("\n")[0]  # what follows names folders
            errors.append(error)
        else:
            checked.subjects += group
    if not checked.subjects:
        raise errors[0]
    return checked


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


def require_same(reports: Mapping[Subject, Sequence[Report]]) -> list[dict[str, Any]]:
    """Compare every subject's first updates with the Trainer's, of the same group.

    Returns the largest differences, as shares. Raises ParityError where one is beyond TOLERANCE:
    speeds of different computations would say nothing.
    """
    found = []
    for subject, given in reports.items():
        if subject.side == TRAINER:
            continue
        wanted = reports[Subject(TRAINER, *subject.group)]
        last = _last_checked(wanted[0].gradient_norms)
        differences = {
            "losses": _difference(_mean_losses(given), _mean_losses(wanted), last),
            "gradient_norms": _difference(given[0].gradient_norms, wanted[0].gradient_norms, last),
        }
        for name, difference in differences.items():
            if not difference <= TOLERANCE[subject.precision]:
                raise ParityError(_fault(subject, name, difference, given[0], wanted[0]))
        losses = {subject.side: _mean_losses(given), TRAINER: _mean_losses(wanted)}
        found.append({**asdict(subject), "differences": differences, "losses": losses})
    return found


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


def _mean_losses(reports: Sequence[Report]) -> list[float]:
    """Losses by update, averaged over the processes, which may report their own or those of all."""
    rows = [one.losses for one in reports if one.losses]
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def _last_checked(norms: Sequence[float]) -> int:
    """How many updates hold `CHECKED` with a finite gradient, or all where there are fewer."""
    finite = np.flatnonzero(np.isfinite(norms))
    return int(finite[CHECKED - 1]) + 1 if len(finite) >= CHECKED else len(norms)


def _difference(values: Sequence[float], wanted: Sequence[float], last: int) -> float:
    """The largest |a - b| / |b| of the first `last` updates.

    Infinite where there is too little, or not the same, to compare. What is finite on neither side
    is the same: fp16's scaler skipped that update on both.
    """
    if len(values) != len(wanted):
        return float("inf")
    found, base = np.asarray(values[:last], np.float64), np.asarray(wanted[:last], np.float64)
    finite = np.isfinite(base)
    if not np.array_equal(np.isfinite(found), finite) or finite.sum() < LEAST_CHECKED:
        return float("inf")
    found, base = found[finite], base[finite]
    return float(np.max(np.abs(found - base) / np.abs(base)))


def _fault(subject: Subject, name: str, difference: float, given: Report, wanted: Report) -> str:
    kind = name.replace("_", " ")
    return (
        f"{subject}: the {kind} of the first updates differ by {difference:.1e} from the Trainer's "
        f"({_listed(getattr(given, name))} against {_listed(getattr(wanted, name))}), allowed is "
        f"{TOLERANCE[subject.precision]:.0e}: the two do not compute the same, so nothing is timed"
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.5g}" for value in values) or "none"
