"""comparison.png: accuracy and entity F1 of every cell, with the baselines as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from multitask_core.files import write_bytes
from multitask_train.comparison.cells import JOINT, SINGLE, Cell, make_cells
from multitask_train.comparison.settings import CompareSettings
from multitask_train.comparison.stats import Table
from multitask_train.curves import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
# Panel → column of the table, title, task whose single-task baseline it shows.
_PANELS = (("accuracy", "intent accuracy", "classification"), ("f1", "entity F1", "ner"))


@dataclass(frozen=True)
class Group:
    """Cells that differ in one thing; labels: what each is called in its group."""

    title: str
    cells: list[Cell]
    labels: list[str]


def groups(settings: CompareSettings) -> list[Group]:
    """Strategies with the first balancer and balancers with the first strategy, or all pairs."""
    joint = [cell for cell in make_cells(settings) if cell.tasks == "both"]
    strategy, balancer = settings.strategies[0], settings.balancers[0]
    if settings.cross:
        return [
            _group(joint, f"balancers, strategy {one}", strategy=one)
            for one in dict.fromkeys(cell.strategy for cell in joint)
        ]
    found = [
        _group(joint, f"strategies, balancer {balancer}", balancer=balancer),
        _group(joint, f"balancers, strategy {strategy}", strategy=strategy),
    ]
    return [group for group in found if group.cells]


def write_figure(path: Path, settings: CompareSettings, table: Table, split: str) -> None:
    """Draw a row of two panels for every group, each with a range of its own.

    One range for all would hide the balancers, which differ by tenths of a point, behind frozen
    encoders, which lose tens.
    """
    shown = groups(settings)
    sizes = [len(group.cells) + 1 for group in shown]
    figure = new_figure(11, 0.36 * sum(sizes) + 0.8 * len(shown) + 0.8)
    axes = figure.subplots(len(shown), 2, squeeze=False, height_ratios=sizes)
    for group, row in zip(shown, axes, strict=True):
        for index, (panel, (key, title, task)) in enumerate(zip(row, _PANELS, strict=True)):
            _draw(panel, group, table, key, task)
            panel.set(
                title=f"{title} ({group.title})", xlabel=f"% on {split}, mean ± standard deviation"
            )
            panel.set_yticks(range(len(group.labels)), group.labels if not index else [])
            panel.set_ylim(len(group.labels) - 0.5, -0.5)
    handles, labels = axes[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    data = BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    write_bytes(path, data.getvalue())


def _draw(axes: Axes, group: Group, table: Table, key: str, task: str) -> None:
    for cell, style, label in (
        (JOINT, "-", f"baseline: {JOINT.strategy} + {JOINT.balancer}"),
        (SINGLE[task], "--", "baseline: the task alone"),
    ):
        if one := table[cell][key]:
            axes.axvline(100 * one.mean, linestyle=style, color="0.4", linewidth=1.2, label=label)
    points = [
        (index, 100 * one.mean, 100 * (one.sd or 0.0))
        for index, cell in enumerate(group.cells)
        if (one := table[cell][key])
    ]
    if points:
        places, means, spreads = zip(*points, strict=True)
        axes.errorbar(
            means,
            places,
            xerr=spreads,
            fmt="o",
            color=COLOURS[task],
            capsize=4,
            label="_cells",
        )
    axes.grid(axis="x", alpha=0.3)


def _group(cells: Sequence[Cell], title: str, *, strategy: str = "", balancer: str = "") -> Group:
    """Those cells with one strategy, named by balancer, or with one balancer, by strategy."""
    chosen = [one for one in cells if strategy in ("", one.strategy)]
    chosen = [one for one in chosen if balancer in ("", one.balancer)]
    labels = [
        (one.balancer if strategy else one.strategy) + (", taught" if one.taught else "")
        for one in chosen
    ]
    return Group(title, chosen, labels)
