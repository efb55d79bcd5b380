"""Which plots a scenario's figures make: load, throughput against p99, scaling, waste, use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from multitask_benchmarks.reporting.points import (
    LATENCIES,
    load_key,
    rate_name,
    subjects,
)
from multitask_benchmarks.reporting.svg import draw, style
from multitask_benchmarks.reporting.timelines import Made, overload, soak
from multitask_benchmarks.results import Measured, ScenarioRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {
    "p50_ms": "p50, ms", "p95_ms": "p95, ms", "p99_ms": "p99, ms", "rows_per_s": "rows/s",
    "texts_per_s": "texts/s", "tokens_per_s": "pieces/s", "utilisation": "share of the peak",
    "padding_share": "share of padding", "rate_per_s": "requests/s offered",
    "answers_per_s": "answers/s", "callers": "concurrent callers", "batch": "rows in a batch",
    "load": "share of the capacity",
}  # fmt: skip


def plots(name: str, record: ScenarioRecord) -> list[tuple[str, str]]:
    """Caption and SVG of every plot that this scenario's points and metrics allow."""
    makers = (_latency, _throughput, _scaling, _padding, _utilisation, soak, overload)
    return [
        (caption, draw(panel, f"{name}: {caption}, plot {number}"))
        for maker in makers
        for caption, panels in maker(record)
        for number, panel in enumerate(panels, 1)
    ]


def _latency(record: ScenarioRecord) -> Made:
    load = load_key(record)
    names = [one for one in LATENCIES if any(one in row.metrics for row in record.measurements)]
    if load and names:
        panels = [partial(_lines, record, load, name, scale="log") for name in names]
        yield "Latency percentiles by load", panels


def _throughput(record: ScenarioRecord) -> Made:
    rate = rate_name(record.measurements)
    if load_key(record) and rate and any("p99_ms" in row.metrics for row in record.measurements):
        yield "Throughput against p99", [partial(_pairs, record, rate, "p99_ms")]


def _scaling(record: ScenarioRecord) -> Made:
    rate = rate_name(record.measurements)
    panels = _by_length(record, rate) if rate else []
    if panels:
        yield "Scaling by batch and length", panels


def _padding(record: ScenarioRecord) -> Made:
    shares = [one.metrics["padding_share"] for one in record.measurements
              if "padding_share" in one.metrics]  # fmt: skip
    if not any(one.median for one in shares):  # rows of one length: there is none
        return
    panels = _by_length(record, "padding_share")
    if panels:
        yield "Padding waste: share of computed pieces that are padding", panels


def _utilisation(record: ScenarioRecord) -> Made:
    panels = _by_length(record, "utilisation")
    if panels:
        yield "Utilisation against the peak measured in the same rounds", panels


def _by_length(record: ScenarioRecord, metric: str) -> list[Callable[[Axes], None]]:
    """A panel for each length, over the batch."""
    rows = [one for one in record.measurements if metric in one.metrics and "batch" in one.point]
    if len({one.point["batch"] for one in rows}) < 2:
        return []
    lengths = dict.fromkeys(one.point.get("length", one.point.get("lengths", "")) for one in rows)
    return [
        partial(_lines, record, "batch", metric, scale="log", length=length) for length in lengths
    ]


def _lines(
    record: ScenarioRecord,
    key: str,
    metric: str,
    axes: Axes,
    *,
    scale: str,
    length: str | float | None = None,
) -> None:
    """A line for each subject with its interval, over one part of the points."""
    for index, subject in enumerate(subjects(record)):
        rows = sorted(
            (row for row in _of(record, subject, metric, length) if key in row.point),
            key=lambda row: float(row.point[key]),
        )
        if rows:
            found = [row.metrics[metric] for row in rows]
            medians = [one.median for one in found]
            below = [max(0.0, one.median - one.low) for one in found]
            above = [max(0.0, one.high - one.median) for one in found]
            at = [float(row.point[key]) for row in rows]
            axes.errorbar(
                at, medians, [below, above], label=subject, marker="o", markersize=3, capsize=2,
                linewidth=1.2, **style(index),
            )  # fmt: skip
    ticks = sorted({float(row.point[key]) for row in record.measurements if key in row.point})
    axes.set(xscale="log", xlabel=_NAMES.get(key, key), ylabel=_NAMES.get(metric, metric))
    axes.set_xticks(ticks, [f"{one:g}" for one in ticks], minor=False)
    axes.minorticks_off()
    if metric in ("utilisation", "padding_share"):
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale(scale)
    if length not in (None, ""):
        axes.set_title(f"length {length}")


def _pairs(record: ScenarioRecord, across: str, up: str, axes: Axes) -> None:
    """A line for each subject through its points, from light to heavy load."""
    for index, subject in enumerate(subjects(record)):
        rows = [row for row in _of(record, subject, up, None) if across in row.metrics]
        if rows:
            axes.plot(
                [row.metrics[across].median for row in rows],
                [row.metrics[up].median for row in rows],
                label=subject, marker="o", markersize=3, linewidth=1.2, **style(index),
            )  # fmt: skip
    axes.set(xlabel=_NAMES.get(across, across), ylabel=_NAMES.get(up, up), yscale="log")
    axes.set_xlim(left=0)


def _of(
    record: ScenarioRecord, subject: str, metric: str, length: str | float | None
) -> list[Measured]:
    return [
        one
        for one in record.measurements
        if one.subject == subject
        and metric in one.metrics
        and (length in (None, "") or length in (one.point.get("length"), one.point.get("lengths")))
    ]
