"""Before the clock starts: do all sides compute the same? Their first updates, on one batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from multitask_benchmarks.training.jobs import TRAINER, Report
from multitask_benchmarks.training.measure import Subject
from multitask_core.errors import MultiTaskError, ParityError

# Losses and gradient norms of the two sides may differ by so much of their size: rows of a batch
# stand in another order, and the Trainer's losses come with four decimals.
TOLERANCE = {"no": 1e-3, "bf16": 2e-2, "fp16": 2e-2}
# Updates that are compared. fp16 leaves out its first ones until its scale fits, and needs more.
CHECKED, LEAST_CHECKED = 3, 2
CHECK_UPDATES = {"no": CHECKED, "bf16": CHECKED, "fp16": CHECKED + 7}

log = logging.getLogger(__name__)


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
