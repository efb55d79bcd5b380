"""Plots over time of the scenarios that are one long run: soak and overload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from multitask_benchmarks.reporting.svg import style
from multitask_benchmarks.results import ScenarioRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Made = Iterator[tuple[str, Sequence[Callable[["Axes"], None]]]]
_S_IN_MIN = 60


class Line(NamedTuple):
    """Values over time; a value of None leaves a gap."""

    label: str
    at: Sequence[float]
    values: Sequence[float | None]


def soak(record: ScenarioRecord) -> Made:
    """Latency of each window, and memory of each process."""
    if record.kind != "serving soak":
        return
    windows = record.details.get("windows", [])
    if windows:
        at = [one["at_s"] / _S_IN_MIN for one in windows]
        lines = [
            Line(name, at, [one["answered"][f"{name}_ms"] for one in windows])
            for name in ("p50", "p95", "p99")
        ]
        yield "Latency over time", [partial(_draw, lines, "minutes", "ms", log=True)]
    samples = record.details.get("memory", {}).get("samples", [])
    if samples:
        names = [name for name in samples[0] if name not in ("at_s", "cpu_s")]
        at = [one["at_s"] / _S_IN_MIN for one in samples]
        lines = [Line(name, at, [one.get(name) for one in samples]) for name in names]
        yield "Memory over time", [partial(_draw, lines, "minutes", "MiB")]


def overload(record: ScenarioRecord) -> Made:
    """Latency, and what was sent and answered, before, under and after the load."""
    if record.kind != "serving overload":
        return
    phases: Mapping[str, Sequence[Mapping[str, Any]]] = record.details.get("series", {})
    begin, changes, rows = 0.0, [], []
    for slots in phases.values():
        rows += [{**one, "at_s": begin + one["start_s"], "width_s": _width(slots)} for one in slots]
        begin += (slots[-1]["start_s"] + _width(slots)) if slots else 0.0
        changes.append(begin)
    if not rows:
        return
    at = [one["at_s"] for one in rows]
    latencies = [Line(name, at, [one[f"{name}_ms"] for one in rows]) for name in ("p50", "p99")]
    counts = [
        Line(name, at, [one[name] / one["width_s"] for one in rows])
        for name in ("sent", "answered")
    ]
    yield (
        "Latency of what was answered; dotted: the load changes",
        [partial(_draw, latencies, "seconds", "ms", log=True, changes=changes[:-1])],
    )
    yield (
        "Requests sent and answered",
        [partial(_draw, counts, "seconds", "requests/s", changes=changes[:-1])],
    )


def _width(slots: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of a slot; of a single one, as it is not told, one."""
    return float(slots[1]["start_s"] - slots[0]["start_s"]) if len(slots) > 1 else 1.0


def _draw(
    lines: Sequence[Line],
    across: str,
    up: str,
    axes: Axes,
    *,
    log: bool = False,
    changes: Sequence[float] = (),
) -> None:
    for index, line in enumerate(lines):
        values = [float("nan") if value is None else value for value in line.values]
        axes.plot(line.at, values, label=line.label, linewidth=1.2, **style(index))
    for change in changes:
        axes.axvline(change, color="#888888", linestyle=":", linewidth=1)
    axes.set(xlabel=across, ylabel=up)
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
