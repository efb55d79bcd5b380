"""One run of `engines`: open, compare, warm up, time, write down."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from multitask_benchmarks.engines import catalogue
from multitask_benchmarks.engines.bench import Measurer
from multitask_benchmarks.engines.catalogue import COMPILED, Subject
from multitask_benchmarks.engines.clock import Peaks, Rounds
from multitask_benchmarks.engines.flops import TOLERANCE, ModelShape
from multitask_benchmarks.engines.plan import Plan, make_plan
from multitask_benchmarks.engines.points import GRID
from multitask_benchmarks.engines.process import RemoteBench, RemoteGemms
from multitask_benchmarks.engines.runners import Source
from multitask_benchmarks.engines.settings import Settings
from multitask_benchmarks.engines.survey import Pace, Survey, Surveyor, fit
from multitask_benchmarks.engines.tables import brief, tables
from multitask_benchmarks.recording import finish, make_record
from multitask_benchmarks.report import progress_console
from multitask_core.artifact import Artifact
from multitask_core.errors import ConfigError, MultiTaskError

# Of a subject's time at a point, what its precision's peak gets.
PEAK_PART = 0.5
# Of the budget, what may be spent before a point is compiled; how long that is expected to take.
COMPILING_PART = 0.6
COMPILING_S = {"cpu": 120.0, "cuda": 30.0}
_SETTLED = ("device", "seconds", "longest_call_s", "budget_s")

log = logging.getLogger(__name__)


class ClosablePeaks(Peaks, Protocol):
    """Peaks that hold a process."""

    def ready(self) -> None:
        """Wait until its libraries are loaded."""
        ...

    def close(self) -> None:
        """End it."""
        ...


open_bench: Callable[[Subject, Source], Measurer] = RemoteBench
open_peaks: Callable[[ModelShape, str, Source], ClosablePeaks] = RemoteGemms


@dataclass
class Engines:
    """What was opened, and why the rest was not. facts: by subject, JSON-ready."""

    peaks: Peaks
    subjects: dict[Subject, Measurer] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Measure and write the scenario; returns the exit status.

    Raises ConfigError where no engine could be measured at any point, ParityError where every one
    beside the reference computes another model.
    """
    plan = make_plan(options)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        progress = Progress(*columns, console=progress_console(), transient=True)
        stack.enter_context(progress)
        engines = _open(settings, plan, stack, progress)
        found = _survey(settings, plan, engines, progress)
        rounds = _time(settings, found, engines, progress)
    baseline = catalogue.reference(settings.device).name
    counted = engines.facts[baseline].get("counted_flops", 0.0)
    fault = _flops_fault(plan.shape, counted)
    record = make_record(
        options,
        baseline=baseline,
        measurements=rounds.measured(None if fault else plan.shape),
        details={
            "settled": {key: getattr(settings, key) for key in _SETTLED},
            **found.details(),
            "not_run": {**engines.absent, **plan.absent},
            "opened": engines.facts,
            "warm_up": _warm_ups(rounds),
            "flops": {**asdict(plan.shape), "counted": counted, "fault": fault},
            "lengths": plan.lengths,
        },
    )
    default = "engines" if options.lengths == GRID else f"engines {options.lengths}"
    return finish(options, record, tables(record), brief(record), default=default)


def _open(settings: Settings, plan: Plan, stack: ExitStack, progress: Progress) -> Engines:
    """Start every engine's process, then load one after the other.

    Nobody loads a model before all have loaded their libraries, which takes memory of the GPU that
    is nobody else's. Raises what the reference raises where it cannot be loaded.
    """
    peaks = open_peaks(plan.shape, settings.device, plan.source)
    stack.callback(peaks.close)
    chosen, absent = catalogue.select(settings.subjects, settings.device)
    engines = Engines(peaks, absent=absent)
    graphs = Artifact.open(settings.artifact).graphs if settings.artifact else None
    started: dict[Subject, Measurer] = {}
    for subject in chosen:
        if reason := catalogue.fault(subject, graphs):
            engines.absent[subject.name] = reason
            continue
        started[subject] = open_bench(subject, plan.source)
        stack.callback(started[subject].close)
    for wait in (peaks.ready, *(bench.ready for bench in started.values())):
        with suppress(MultiTaskError):  # whoever could not start says so when it is used
            wait()
    for subject, bench in progress.track(list(started.items()), description="opening"):
        try:
            engines.facts[subject.name] = bench.open()
        except MultiTaskError as error:
            if subject == catalogue.reference(settings.device):
                raise
            engines.absent[subject.name] = str(error)
        else:
            engines.subjects[subject] = bench
    return engines


def _survey(settings: Settings, plan: Plan, engines: Engines, progress: Progress) -> Survey:
    """Compare and warm up; compiled engines last, so that compilers cost nobody else a point.

    Those are compared at the run's own points alone: every further shape would be compiled too.
    """
    surveyor = Surveyor(
        engines.subjects, settings.longest_call_s, allow_different=settings.allow_different
    )
    plain = [one for one in engines.subjects if one.mode != COMPILED]
    surveyor.compare(plan.mixes, plain)
    task = progress.add_task("warming up", total=len(plan.works) * len(engines.subjects))

    def advance() -> None:
        progress.advance(task)

    _warm(surveyor, settings, plan, plain, advance)
    for one in engines.subjects:
        if one.mode == COMPILED:
            expected_s = COMPILING_S[settings.device]
            _warm(surveyor, settings, plan, [one], advance, COMPILING_PART, expected_s)
    surveyor.require_others()
    return surveyor.found


def _warm(
    surveyor: Surveyor,
    settings: Settings,
    plan: Plan,
    subjects: Sequence[Subject],
    advance: Callable[[], None],
    part: float = 1.0,
    expected_s: float = 0.0,
) -> None:
    """Warm engines at the points whose rounds will fit into the budget; the first in any case.

    part: of the budget, what may have been spent before a point is warmed. expected_s: what the
    first one's first call may take, beside rounds.
    """
    pace, next_s = _pace(settings), 0.0
    for work in plan.works:
        planned_s = pace.total_s(surveyor.found.cells)
        left_s = settings.budget_s - settings.spent_s - planned_s
        if surveyor.found.cells and settings.spent_s >= part * settings.budget_s:
            reason = f"{part:.0%} of --budget was spent before its warm-up"
        elif surveyor.found.cells and left_s <= next_s + expected_s:
            reason = "it would not fit into what the rounds of smaller points leave of --budget"
        else:
            surveyor.visit(work, subjects, advance)
            # Points come from small to large: the next takes at least as long.
            next_s = max(0.0, pace.total_s(surveyor.found.cells) - planned_s)
            if surveyor.found.cells:
                expected_s = surveyor.found.cells[-1].warm.first_s
            continue
        surveyor.leave_out(work, subjects, reason)


def _pace(settings: Settings) -> Pace:
    return Pace(settings.rounds, settings.seconds, PEAK_PART * settings.seconds)


def _time(settings: Settings, found: Survey, engines: Engines, progress: Progress) -> Rounds:
    """All rounds of what fits into the rest of the budget."""
    if not found.cells:
        reasons = "; ".join(f"{one.point}: {one.reason}" for one in found.skipped)
        raise ConfigError(f"nothing could be measured: {reasons}")
    pace = _pace(settings)
    cells = fit(found, pace, settings.budget_s - settings.spent_s)
    rounds = Rounds(cells, engines.subjects, engines.peaks)
    task = progress.add_task("measuring", total=pace.rounds * rounds.steps)
    rounds.run(pace.rounds, pace.seconds, pace.peak_s, lambda: progress.advance(task))
    found.skipped += rounds.skipped
    return rounds


def _flops_fault(shape: ModelShape, counted: float) -> str:
    """Why GFLOP/s are not given: the formula is not that of this encoder; empty where it is."""
    expected = shape.flops([shape.counted_pieces])
    if abs(counted - expected) <= TOLERANCE * expected:
        return ""
    fault = (
        f"torch counts {counted:.4g} FLOPs for {shape.counted_pieces} pieces, the formula of "
        f"BERT-like encoders {expected:.4g}: GFLOP/s and utilisation are left out"
    )
    log.warning("%s", fault)
    return fault


def _warm_ups(rounds: Rounds) -> list[dict[str, Any]]:
    """First calls, which hold what is compiled or prepared for a shape, beside the second."""
    return [
        {
            "subject": cell.subject.name,
            "point": str(cell.work.point),
            "first_call_s": round(cell.warm.first_s, 4),
            "second_call_s": round(cell.warm.call_s, 4),
        }
        for cell in rounds.cells
    ]
