"""The result for people, and its last line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from multitask_benchmarks.report import brackets, figures, interval, make_table
from multitask_benchmarks.results import Measured, Metric, ScenarioRecord
from multitask_benchmarks.stats import NOISY_SPREAD, ratio

_COLUMNS = (
    "subject", "p50 ms", "rows/s", "against", "pieces/s", "GFLOP/s", "of peak", "padding",
)  # fmt: skip
_RATE = "rows_per_s"


def tables(record: ScenarioRecord) -> list[Table]:
    """One table for each point, what could not be measured, and how far the logits differ."""
    found = [_point_table(record, point) for point in _points(record)]
    reasons = [
        *record.details["not_run"].items(),
        *record.details["refused"].items(),
        *(
            (f"{one['subject'] or 'all'} at {one['point']}", one["reason"])
            for one in record.details["skipped"]
        ),
    ]
    if reasons:
        found.append(make_table("Not measured", ("what", "why"), reasons))
    rows = [_difference(name, one) for name, one in record.details["agreement"].items()]
    if rows:
        columns = ("subject", "largest difference", "relative", "same label", "same tag")
        found.append(make_table(f"Logits against {record.baseline}'s", columns, rows))
    return found


def brief(record: ScenarioRecord) -> list[dict[str, Any]]:
    """Medians, for the last line of standard output."""
    return [
        {
            "subject": one.subject,
            **one.point,
            **{name: one.metrics[name].median for name in _BRIEF if name in one.metrics},
        }
        for one in record.measurements
    ]


_BRIEF = ("p50_ms", _RATE, "gflop_per_s", "utilisation")


def _points(record: ScenarioRecord) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for one in record.measurements:
        if one.point not in points:
            points.append(one.point)
    return points


def _point_table(record: ScenarioRecord, point: Mapping[str, Any]) -> Table:
    here = [one for one in record.measurements if one.point == point]
    base = record.find(record.baseline, point)
    rows = [_row(one, base) for one in here]
    title = ", ".join(f"{name} {value}" for name, value in point.items())
    rounds = record.config["rounds"]
    caption = (
        f"medians of {rounds} interleaved rounds {brackets(rounds)}; against: "
        f"{record.baseline}; ~ marks rounds that differ by more than {NOISY_SPREAD:.0%}"
    )
    return make_table(title, _COLUMNS, rows, caption)


def _row(measured: Measured, base: Measured | None) -> tuple[object, ...]:
    metrics = measured.metrics
    against = None
    if base and base is not measured and _RATE in metrics:
        against = interval(ratio(metrics[_RATE].rounds, base.metrics[_RATE].rounds))
    noisy = any(one.noisy for name, one in metrics.items() if name in (_RATE, "gflop_per_s"))
    return (
        measured.subject + (" ~" if noisy else ""),
        _median(metrics.get("p50_ms")),
        _median(metrics.get(_RATE)),
        against,
        _median(metrics.get("tokens_per_s")),
        _median(metrics.get("gflop_per_s")),
        _share(metrics.get("utilisation")),
        _share(metrics.get("padding_share")),
    )


def _difference(name: str, one: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        name,
        str(one["largest"]),
        str(one["relative"]),
        f"{one['label_share']:.2%}",
        f"{one['tag_share']:.2%}",
    )


def _median(metric: Metric | None) -> str | None:
    return figures(metric.median) if metric else None


def _share(metric: Metric | None) -> str | None:
    return f"{metric.median:.0%}" if metric else None
