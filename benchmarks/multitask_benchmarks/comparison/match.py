"""Which figures of two result files belong together, and what else differs between the files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitask_benchmarks.comparison.judge import Change, Thresholds, judge
from multitask_benchmarks.machine import hardware_slug
from multitask_benchmarks.results import Measured, Metric, Point, ResultFile, ScenarioRecord

ALL_POINTS: Point = {"points": "all"}
_MACHINE = ("cpu", "cpus", "cpu_flags", "memory_gib", "gpus", "system", "python", "packages")


@dataclass(frozen=True)
class Figure:
    """One figure of both files, compared."""

    scenario: str
    subject: str
    point: Point
    metric: str
    unit: str
    change: Change


def compare_files(before: ResultFile, after: ResultFile, thresholds: Thresholds) -> list[Figure]:
    """Every figure that both files have and for which one direction is better."""
    shared = [name for name in before.scenarios if name in after.scenarios]
    return [
        figure
        for name in shared
        for figure in _scenario(name, before.scenarios[name], after.scenarios[name], thresholds)
    ]


def differences(before: ResultFile, after: ResultFile) -> list[str]:
    """What else is not the same: model, machine, settings, and what only one file has."""
    found = _unequal("model", before.model, after.model)
    found += _missing("scenario", before.scenarios, after.scenarios)
    for name in before.scenarios:
        if name in after.scenarios:
            lines = _scenario_differences(before.scenarios[name], after.scenarios[name])
            found += [f"{name}: {line}" for line in lines]
    return found


def _scenario(
    name: str, before: ScenarioRecord, after: ScenarioRecord, thresholds: Thresholds
) -> Iterator[Figure]:
    pairs = [
        (one, other)
        for one in _with_all_points(before)
        if (other := _find(_with_all_points(after), one))
    ]
    bases = _bases(before), _bases(after)
    same_baseline = before.baseline == after.baseline
    for one, other in pairs:
        base: tuple[Measured | None, ...] = (None, None)
        if same_baseline and one.subject != before.baseline:
            base = tuple(found.get(_key(one.point)) for found in bases)
        for metric, mine in one.metrics.items():
            theirs = other.metrics.get(metric)
            if theirs and mine.better:
                change = _judge(metric, mine, theirs, base, thresholds)
                yield Figure(name, one.subject, one.point, metric, mine.unit, change)


def _judge(
    name: str,
    mine: Metric,
    theirs: Metric,
    bases: Sequence[Measured | None],
    thresholds: Thresholds,
) -> Change:
    rounds = [one.metrics[name].rounds for one in bases if one and name in one.metrics]
    pair = (rounds[0], rounds[1]) if len(rounds) == 2 else None
    return judge(mine.rounds, theirs.rounds, mine.better, thresholds, pair)


def _with_all_points(record: ScenarioRecord) -> list[Measured]:
    """The measurements, and for a subject with several points their geometric mean by round.

    It shows what is small at each point and the same at all of them.
    """
    found = list(record.measurements)
    for subject in dict.fromkeys(one.subject for one in record.measurements):
        several = [one for one in record.measurements if one.subject == subject]
        if len(several) > 1:
            metrics = {name: mean for name in several[0].metrics if (mean := _mean(several, name))}
            found.append(Measured(subject, ALL_POINTS, metrics))
    return found


def _mean(points: Sequence[Measured], name: str) -> Metric | None:
    metrics = [one.metrics[name] for one in points if name in one.metrics]
    counts = {len(one.rounds) for one in metrics}
    if len(metrics) < len(points) or len(counts) > 1 or min(min(m.rounds) for m in metrics) <= 0:
        return None
    means = np.exp(np.mean(np.log([one.rounds for one in metrics]), axis=0))
    return Metric.of(means.tolist(), metrics[0].unit, metrics[0].better)


def _bases(record: ScenarioRecord) -> dict[str, Measured]:
    rows = _with_all_points(record)
    return {_key(one.point): one for one in rows if one.subject == record.baseline}


def _find(rows: Iterable[Measured], wanted: Measured) -> Measured | None:
    same = (one for one in rows if (one.subject, one.point) == (wanted.subject, wanted.point))
    return next(same, None)


def _key(point: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(point.items()))


def _scenario_differences(before: ScenarioRecord, after: ScenarioRecord) -> list[str]:
    found = _unequal("command", before.kind, after.kind)
    found += _unequal("baseline", before.baseline, after.baseline)
    found += _unequal("hardware", hardware_slug(before.machine), hardware_slug(after.machine))
    for title, keys, mine, theirs in (
        ("machine", _MACHINE, before.machine, after.machine),
        ("setting", sorted({*before.config, *after.config}), before.config, after.config),
    ):
        for key in keys:
            found += _unequal(f"{title} {key}", mine.get(key), theirs.get(key))
    return found + _missing("figures of", _names(before), _names(after))


def _names(record: ScenarioRecord) -> list[str]:
    return [f"{one.subject} at {_key(one.point)}" for one in record.measurements]


def _missing(kind: str, before: Iterable[str], after: Iterable[str]) -> list[str]:
    first, second = list(before), list(after)
    only_first = [f"{kind} {one!r} only in the first file" for one in first if one not in second]
    only_second = [f"{kind} {one!r} only in the second file" for one in second if one not in first]
    return only_first + only_second


def _unequal(name: str, before: Any, after: Any) -> list[str]:  # noqa: ANN401  any JSON value
    """One line for a value, one for each entry of a mapping that differs."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted({*before, *after})
        return [
            line
            for key in keys
            for line in _unequal(f"{name} {key}", before.get(key), after.get(key))
        ]
    return [] if before == after else [f"{name}: {before!r} → {after!r}"]
