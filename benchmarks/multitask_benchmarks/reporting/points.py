"""What a scenario's figures are a function of: load, batch, length; and which rate counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multitask_benchmarks.report import figures
from multitask_benchmarks.results import Measured, Metric, Point, ScenarioRecord
from multitask_benchmarks.stats import Estimate, ratio

LOADS = ("callers", "concurrency", "rate_per_s", "load", "rate", "size")
# Loads that are offered whatever the server does, so that they decide how many answers come.
OFFERED = ("rate_per_s", "load", "rate")
RATES = (
    "max_rate_per_s", "answers_per_s", "rows_per_s", "texts_per_s", "requests_per_s",
    "tokens_per_s",
)  # fmt: skip
LATENCIES = ("p50_ms", "p95_ms", "p99_ms")


def load_key(record: ScenarioRecord) -> str:
    """The part of the points that is load, "" where there is none or only one value of it."""
    for key in LOADS:
        values = {one.point[key] for one in record.measurements if key in one.point}
        if len(values) > 1:
            return key
    return ""


def rate_name(measurements: Sequence[Measured]) -> str:
    """The rate that stands for the scenario, "" where it has none."""
    found = (name for name in RATES if any(name in one.metrics for one in measurements))
    return next(found, "")


def subjects(record: ScenarioRecord) -> list[str]:
    """In the order in which they were measured, the baseline first."""
    names = dict.fromkeys(one.subject for one in record.measurements)
    return sorted(names, key=lambda name: name != record.baseline)


def points(record: ScenarioRecord) -> list[Point]:
    """Every point once."""
    found: list[Point] = []
    for one in record.measurements:
        if one.point not in found:
            found.append(one.point)
    return found


def differing(record: ScenarioRecord) -> dict[str, str]:
    """Subjects some of whose answers were not the reference's: `3 of 512`."""
    found: Mapping[str, Any] = record.details.get("agreement", {})
    rows = {"server": found} if "all_equal" in found else found
    return {
        name: f"{one['texts'] - one['all_equal']:,} of {one['texts']:,}"
        for name, one in rows.items()
        if one.get("all_equal", 0) < one.get("texts", 0) and "all_equal" in one
    }


def title(point: Point) -> str:
    """`batch 8, length 128`, `32 callers`, `all`."""
    return ", ".join(_part(name, value) for name, value in point.items()) or "–"


def _part(name: str, value: str | float) -> str:
    if name == "callers":
        return f"{value} caller{'' if value == 1 else 's'}"
    if name == "load":
        return f"load {value:.0%}"
    return f"{name.replace('_per_s', '/s')} {value}"


def against(record: ScenarioRecord, measured: Measured, name: str) -> Estimate | None:
    """A metric as a multiple of the baseline's, round by round; None where that cannot be."""
    base = record.find(record.baseline, measured.point) if record.baseline else None
    if base is None or base is measured:
        return None
    if name not in base.metrics or name not in measured.metrics:
        return None
    mine, theirs = measured.metrics[name].rounds, base.metrics[name].rounds
    return ratio(mine, theirs) if len(mine) == len(theirs) and min(theirs) > 0 else None


def noise(record: ScenarioRecord) -> tuple[int, int]:
    """How many figures are noisy, of how many.

    They are the scenario's rates, as ratios to the baseline's where it has one, or slow minutes
    that cancel would count; p99 where the load was given, which decides the rate; where there is
    neither, all figures of which one direction is better.
    """
    rate = rate_name(record.measurements)
    tails = any("p99_ms" in one.metrics for one in record.measurements)
    chosen = "p99_ms" if load_key(record) in OFFERED and tails else rate
    figures = [
        (against(record, one, name), metric)
        for one in record.measurements
        for name, metric in one.metrics.items()
        if (name == chosen if chosen else metric.better)
    ]
    ratios = [times.noisy for times, _ in figures if times]
    marks = ratios or [metric.noisy for _, metric in figures]
    return sum(marks), len(marks)


def shown(metric: Metric) -> str:
    """`19.5 [18.0, 20.1] ~`; a share as a percentage; one round alone has no interval."""
    mark = " ~" if metric.noisy else ""
    if len(metric.rounds) < 2:
        return number(metric.median, metric.unit)
    low, high = number(metric.low, metric.unit), number(metric.high, metric.unit)
    return f"{number(metric.median, metric.unit)} [{low}, {high}]{mark}"


def number(value: float, unit: str) -> str:
    """Three figures; without a unit it is a share if it is below 1."""
    return f"{value:.1%}" if not unit and 0 <= value <= 1 else figures(value)
