"""Before the clock starts: warm every engine at every point, compare its logits, estimate the time.

What would take too long is left out here, with its reason, and so is an engine that fails or that
computes another model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from multitask_benchmarks.engines.bench import Measurer, Sample, Warm
from multitask_benchmarks.engines.catalogue import COMPILED, Subject
from multitask_benchmarks.engines.differences import Difference
from multitask_benchmarks.engines.points import Point, Work
from multitask_core.batching import RowLogits, Rows
from multitask_core.errors import MultiTaskError, ParityError

_SHORTEST_S = 1e-9  # of a pass: a clock may say that it took no time
log = logging.getLogger(__name__)


@dataclass(eq=False)  # a cell is itself, whatever it measured
class Cell:
    """One subject at one point: its warm-up, and what each round measured."""

    subject: Subject
    work: Work
    warm: Warm
    samples: list[Sample] = field(default_factory=list)

    @property
    def pass_s(self) -> float:
        """Estimated seconds of all batches."""
        assert self.warm.pass_s is not None, "a cell whose call is too long is not kept"
        return self.warm.pass_s


@dataclass(frozen=True)
class Skip:
    """Why a subject was not measured at a point; an empty subject stands for all."""

    subject: str
    point: str
    reason: str


@dataclass(frozen=True)
class Pace:
    """rounds: how many. seconds, peak_s: of a cell and of a precision's peak in each, at least."""

    rounds: int
    seconds: float
    peak_s: float

    def total_s(self, cells: Sequence[Cell]) -> float:
        """What all rounds of these will take, in whole passes, the peaks beside them."""
        peaks = {(cell.work.point, cell.subject.precision) for cell in cells}
        return self.rounds * (sum(map(self._cell_s, cells)) + self.peak_s * len(peaks))

    def _cell_s(self, cell: Cell) -> float:
        pass_s = max(cell.pass_s, _SHORTEST_S)
        return pass_s * math.ceil(self.seconds / pass_s)


@dataclass
class Survey:
    """What can be measured, what cannot, and how far each subject's logits are from FP32's.

    failed: why a subject could not answer the batches of every kind. refused: why a subject's
    answers are beyond the bounds of its precision; it has no cells.
    """

    cells: list[Cell] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    differences: dict[str, Difference] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, subject: Subject, reason: str) -> None:
        """Drop a subject, at the points where it was warm already too."""
        log.warning("%s is left out: %s", subject.name, reason)
        self.refused[subject.name] = reason
        self.cells = [cell for cell in self.cells if cell.subject != subject]

    def details(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "agreement": {name: one.to_dict() for name, one in self.differences.items()},
            "failed_checks": self.failed,
            "refused": self.refused,
            "skipped": [asdict(one) for one in self.skipped],
        }


class Surveyor:
    """subjects: open engines, the reference first. longest_s: the longest call that is let be."""

    def __init__(
        self, subjects: Mapping[Subject, Measurer], longest_s: float, *, allow_different: bool
    ) -> None:
        self._subjects = dict(subjects)
        self._reference = next(iter(subjects))
        self._longest_s, self._allow_different = longest_s, allow_different
        self._seconds_a_slot: dict[Subject, float] = {}
        self._expected: dict[Point, list[RowLogits]] = {}
        self.found = Survey()

    def compare(self, batches: Sequence[Rows], subjects: Sequence[Subject]) -> None:
        """Answer batches of every kind with every engine; one that answers otherwise is refused.

        An engine that fails on one, such as a kernel that takes no mask, is still tried at the
        points of the run.
        """
        for rows in batches:
            expected = self._subjects[self._reference].logits(rows)
            for subject in self._left(subjects):
                try:
                    found = self._subjects[subject].logits(rows)
                except MultiTaskError as error:
                    self.found.failed.setdefault(subject.name, str(error))
                else:
                    self._agrees(subject, found, expected)

    def visit(
        self, work: Work, subjects: Sequence[Subject], advance: Callable[[], None] = lambda: None
    ) -> None:
        """Warm engines at a point, the reference before any other; points come from small to large.

        Engines may come to the same points later, which the reference is then not asked again for.
        """
        if not self._visit_reference(work):
            return
        expected = self._expected[work.point]
        for subject in self._left(subjects):
            cell = self._warm(subject, work)
            if cell and self._agrees(subject, cell.warm.logits, expected):
                self._keep(cell)
            advance()

    def _visit_reference(self, work: Work) -> bool:
        """Whether there are logits to compare with."""
        if work.point not in self._expected:
            cell = self._warm(self._reference, work)
            self._expected[work.point] = cell.warm.logits if cell else []
            if cell:
                self._keep(cell)
            else:
                name = self._reference.name
                self._skip("", work, f"{name}, the measure of all others, is left out")
        return bool(self._expected[work.point])

    def _keep(self, cell: Cell) -> None:
        cell.warm = replace(cell.warm, logits=[])  # of no more use, and large
        self.found.cells.append(cell)

    def leave_out(self, work: Work, subjects: Sequence[Subject], reason: str) -> None:
        """Do not visit a point with these."""
        for subject in subjects:
            if subject.name not in self.found.refused:
                self._skip(subject.name, work, reason)

    def require_others(self) -> None:
        """Raise ParityError where engines were refused and the reference alone is left."""
        left = {cell.subject for cell in self.found.cells} - {self._reference}
        if self.found.refused and not left:
            reasons = "; ".join(f"{name} {reason}" for name, reason in self.found.refused.items())
            raise ParityError(
                f"{reasons}. Are artifact and checkpoint of the same training run? "
                "--allow-different records the difference and goes on"
            )

    def _left(self, subjects: Sequence[Subject]) -> list[Subject]:
        """Those that are compared with the reference and have not been refused."""
        refused = self.found.refused
        return [one for one in subjects if one != self._reference and one.name not in refused]

    def _warm(self, subject: Subject, work: Work) -> Cell | None:
        """A cell, unless its call is, or would be, too long, or the engine fails."""
        expected_s = work.slots * self._seconds_a_slot.get(subject, 0.0)
        if expected_s > self._longest_s:
            self._skip(subject.name, work, self._too_long(expected_s, "would take"))
            return None
        try:
            engine = self._subjects[subject]
            warm = engine.warm(str(work.point), work.batches, self._longest_s)
        except MultiTaskError as error:
            self._skip(subject.name, work, str(error))
            return None
        self._seconds_a_slot[subject] = warm.call_s / work.slots
        if warm.pass_s is None:
            self._skip(subject.name, work, self._too_long(warm.call_s, "takes"))
            return None
        return Cell(subject, work, warm)

    def _agrees(
        self, subject: Subject, found: Sequence[RowLogits], expected: Sequence[RowLogits]
    ) -> bool:
        """Whether a subject stays: it is refused for logits beyond its precision's bound."""
        difference = self.found.differences.setdefault(subject.name, Difference())
        fault = difference.add(found, expected) or difference.fault(subject.precision)
        if not fault or self._allow_different:
            return True
        self.found.refuse(subject, f"does not compute {self._reference.name}'s model: {fault}")
        return False

    def _too_long(self, seconds: float, verb: str) -> str:
        return f"a call {verb} about {seconds:.3g} s, --longest-call is {self._longest_s:g}"

    def _skip(self, subject: str, work: Work, reason: str) -> None:
        self.found.skipped.append(Skip(subject, str(work.point), reason))


def fit(found: Survey, pace: Pace, budget_s: float) -> list[Cell]:
    """Cells whose rounds fit into the budget; the cheapest point always stays.

    Left out are the points that take longest, those of compiled engines before any other: their
    compiler has spent what the others had counted on.
    """
    groups: dict[tuple[bool, str], list[Cell]] = {}
    for cell in found.cells:
        name = cell.subject.mode == COMPILED, str(cell.work.point)
        groups.setdefault(name, []).append(cell)
    costs = {name: pace.total_s(cells) for name, cells in groups.items()}
    kept = sorted(groups, key=lambda name: (name[0], costs[name]))
    while sum(costs[name] for name in kept) > budget_s and len(kept) > 1:
        compiled, point = name = kept.pop()
        reason = f"its rounds would take about {costs[name]:.0f} s, more than is left of --budget"
        names = [cell.subject.name for cell in groups[name]] if compiled else [""]
        found.skipped += [Skip(subject, point, reason) for subject in names]
    return [cell for name in groups if name in kept for cell in groups[name]]
