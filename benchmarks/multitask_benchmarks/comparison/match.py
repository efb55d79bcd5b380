"""Which figures of two result files belong together, and what else differs between the files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitask_benchmarks.comparison.judge import Change, Thresholds, judge, judge_shares
from multitask_benchmarks.machine import hardware_slug
from multitask_benchmarks.reporting.sections import warnings
from multitask_benchmarks.results import (
    MACHINE_PEAK,
    Measured,
    Metric,
    Point,
    ResultFile,
    ScenarioRecord,
)

ALL_POINTS: Point = {"points": "all"}
_PEAKS_DIFFER = 0.15
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
    pairs = list(_pairs(before, after))
    for pair in pairs:
        for metric in pair.metrics():
            yield _figure(name, pair.mine.subject, pair.mine.point, [pair], metric, thresholds)
    for subject in dict.fromkeys(pair.mine.subject for pair in pairs):
        yield from _all_points(
            name, [pair for pair in pairs if pair.mine.subject == subject], thresholds
        )


@dataclass(frozen=True)
class _Pair:
    """A subject at a point that both files have; bases: the baseline there, where both have it."""

    mine: Measured
    theirs: Measured
    bases: tuple[Measured, Measured] | None

    def metrics(self) -> list[str]:
        """What both have and for which one direction is better."""
        found = self.mine.metrics.items()
        return [name for name, one in found if one.better and name in self.theirs.metrics]

    def sides(self, metric: str) -> list[Metric]:
        """Before and after, then the baseline's of both where it has the figure."""
        rows = [self.mine, self.theirs]
        if self.bases and all(metric in one.metrics for one in self.bases):
            rows += self.bases
        return [one.metrics[metric] for one in rows]


def _pairs(before: ScenarioRecord, after: ScenarioRecord) -> Iterator[_Pair]:
    same = bool(before.baseline) and before.baseline == after.baseline
    for mine in before.measurements:
        theirs = after.find(mine.subject, mine.point)
        # What the machine itself reaches is nobody's merit: `_peaks` tells where it differs.
        if theirs is None or mine.subject.startswith(MACHINE_PEAK):
            continue
        first = second = None
        if same and mine.subject != before.baseline:
            first, second = (one.find(one.baseline, mine.point) for one in (before, after))
        yield _Pair(mine, theirs, (first, second) if first and second else None)


def _all_points(name: str, pairs: Sequence[_Pair], thresholds: Thresholds) -> Iterator[Figure]:
    """A subject's points together, those alone that both files and the baseline in both have.

    It shows what is small at each point and the same at all of them.
    """
    for metric in dict.fromkeys(metric for pair in pairs for metric in pair.metrics()):
        known = [pair for pair in pairs if metric in pair.metrics()]
        most = max(len(pair.sides(metric)) for pair in known)
        chosen = [pair for pair in known if len(pair.sides(metric)) == most]
        if len(chosen) > 1 and _can_be_averaged([pair.sides(metric) for pair in chosen]):
            yield _figure(name, chosen[0].mine.subject, ALL_POINTS, chosen, metric, thresholds)


def _can_be_averaged(points: Sequence[Sequence[Metric]]) -> bool:
    """Whether every side has as many rounds at all points, all above 0."""
    for side in zip(*points, strict=True):
        if len({len(one.rounds) for one in side}) > 1 or min(min(one.rounds) for one in side) <= 0:
            return False
    return True


def _figure(
    name: str,
    subject: str,
    point: Point,
    pairs: Sequence[_Pair],
    metric: str,
    thresholds: Thresholds,
) -> Figure:
    """One figure at one point, or the geometric mean over several in each round."""
    kind = pairs[0].mine.metrics[metric]
    points = [pair.sides(metric) for pair in pairs]
    before, after, *bases = (_mean(side) for side in zip(*points, strict=True))
    pair = (bases[0], bases[1]) if bases else None
    is_share = not kind.unit and max(*before, *after) <= 1
    if is_share and len(pairs) == 1:
        change = judge_shares(before, after, kind.better, thresholds)
    else:
        change = judge(before, after, kind.better, thresholds, pair)
    return Figure(name, subject, point, metric, kind.unit, change)


def _mean(metrics: Sequence[Metric]) -> Sequence[float]:
    """The geometric mean in each round; one alone is as it stands."""
    if len(metrics) == 1:
        return metrics[0].rounds
    means: list[float] = np.exp(np.mean(np.log([one.rounds for one in metrics]), axis=0)).tolist()
    return means


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
    found += _peaks(before, after)
    found += _missing("warning", warnings(before), warnings(after))
    return found + _missing("figures of", _names(before), _names(after))


def _peaks(before: ScenarioRecord, after: ScenarioRecord) -> list[str]:
    """Peaks of the machine whose medians over all points differ by more than `_PEAKS_DIFFER`."""
    sides = [_peak_rates(record) for record in (before, after)]
    return [
        f"machine {name}: {sides[0][name]:.4g} → {sides[1][name]:.4g} GFLOP/s"
        for name in sides[0]
        if name in sides[1]
        and max(side[name] for side in sides) > (1 + _PEAKS_DIFFER) * min(s[name] for s in sides)
    ]


def _peak_rates(record: ScenarioRecord) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in record.measurements:
        if one.subject.startswith(MACHINE_PEAK):
            rates = [metric.median for metric in one.metrics.values()]
            found.setdefault(one.subject, []).extend(rates)
    return {name: float(np.median(rates)) for name, rates in found.items()}


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
