"""The course of a run as one picture: a panel for each task's loss and each task's dev metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import uniform_filter1d

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"classification": "#0072B2", "ner": "#D55E00", "joint": "#009E73"}
STYLES = ("-", "--", ":")
NAMES = {"classification": "label", "ner": "entity", "joint": "whole sentence"}
_DEV = {
    "classification": {"accuracy": "accuracy", "macro_f1": "macro F1"},
    "ner": {"f1": "strict F1", "precision": "precision", "recall": "recall"},
    "joint": {"exact_match": "exact match"},
}

Records = Sequence[Mapping[str, Any]]
Panel = Callable[["Axes"], None]


def curves(history: Mapping[str, Any]) -> Figure | None:
    """Losses, dev metrics, weights of the tasks, learning rate and gradient norm over the updates.

    history: `updates` and `epochs` as in history.json; None where they tell of no update.
    """
    updates, epochs = history["updates"], history["epochs"]
    last = max((one["update"] for one in (*updates, *epochs)), default=0)
    if not last:
        return None
    panels = list(_panels(updates, epochs))
    rows = -(-len(panels) // 2)
    figure = new_figure(11, 2.8 * rows)
    cells = figure.subplots(rows, 2, squeeze=False).ravel()
    for cell, panel in zip(cells, panels, strict=False):
        panel(cell)
        cell.set(xlabel="update", xlim=(0, 1.02 * last))
        cell.grid(alpha=0.3)
    for cell in cells[len(panels) :]:
        cell.set_axis_off()
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out so that nothing overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panels(updates: Records, epochs: Records) -> Iterator[Panel]:
    tasks = [task for task in COLOURS if any(task in one["losses"] for one in updates)]
    for task in tasks:
        yield partial(_loss, updates=updates, task=task)
    for task in COLOURS:
        measured = [one for one in epochs if one["dev"][task] is not None]
        if measured:
            yield partial(_dev, epochs=measured, task=task)
    if any(one["weights"] for one in updates):
        yield partial(_weights, updates=updates)
    if updates:
        yield partial(_number, updates=updates, key="learning_rate", title="learning rate")
        yield partial(
            _number, updates=updates, key="gradient_norm", title="gradient norm before clipping"
        )


def _loss(axes: Axes, *, updates: Records, task: str) -> None:
    """One task's loss, raw and smoothed, on a log axis: late progress shows as early one does."""
    points = [(one["update"], one["losses"][task]) for one in updates if task in one["losses"]]
    finite = np.array([point for point in points if np.isfinite(point[1])], np.float64)
    lost = len(points) - len(finite)
    axes.set_title(f"{NAMES[task]} loss" + (f" ({lost} not finite)" if lost else ""))
    axes.set_ylabel("cross-entropy (nats)")
    if not len(finite):
        return
    size = max(1, len(finite) // 50)
    _line(axes, finite, color=COLOURS[task], alpha=0.3, linewidth=0.8, label="recorded")
    finite[:, 1] = uniform_filter1d(finite[:, 1], size, mode="nearest")
    _line(axes, finite, color=COLOURS[task], linewidth=2, label=f"mean of {size}")
    if (finite[:, 1] > 0).all():
        axes.set_yscale("log")
    axes.legend(fontsize=8)


def _dev(axes: Axes, *, epochs: Records, task: str) -> None:
    places = [one["update"] for one in epochs]
    for style, (key, name) in zip(STYLES, _DEV[task].items(), strict=False):
        values = [100 * one["dev"][task][key] for one in epochs]
        axes.plot(places, values, style, marker="o", markersize=4, color=COLOURS[task], label=name)
    axes.set(title=f"{NAMES[task]} metrics on dev", ylabel="%")
    axes.legend(fontsize=8)


def _weights(axes: Axes, *, updates: Records) -> None:
    for style, task in zip(STYLES, COLOURS, strict=False):
        points = [
            (one["update"], one["weights"][task]) for one in updates if task in one["weights"]
        ]
        if points:
            _line(axes, np.array(points), linestyle=style, color=COLOURS[task], label=NAMES[task])
    axes.set(title="weights of the losses", ylabel="weight")
    axes.legend(fontsize=8)


def _number(axes: Axes, *, updates: Records, key: str, title: str) -> None:
    points = np.array([(one["update"], one[key]) for one in updates], np.float64)
    _line(axes, points, color="black", linewidth=1)
    axes.set(title=title, ylabel=title.split(" before")[0])
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))


def _line(axes: Axes, points: Any, **style: Any) -> None:  # noqa: ANN401  [N, 2]; matplotlib's own
    axes.plot(points[:, 0], points[:, 1], **style)
