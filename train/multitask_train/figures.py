"""Pictures of a run: curves of the training, and what the model gets wrong on one split.

Every task has panels of its own, so that none can stall behind another's progress. Colours are
those of Okabe and Ito, which colour-blind readers tell apart. matplotlib loads when a picture is
drawn, with the Agg canvas alone: no window, no global state.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multitask_core.files import write_bytes
from multitask_core.prediction import Prediction
from multitask_train.curves import COLOURS, curves, new_figure
from multitask_train.data.examples import Example
from multitask_train.metrics import BINS, Reliability, Scored, scored_entities, scored_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
# Up to so many classes a confusion matrix has counts in its cells, names at its sides.
_COUNTED, _NAMED = 20, 200
# Most types with a bar of their own, most confused pairs in the list.
_BARS, _PAIRS = 80, 25
_NAME_LENGTH = 28


def write_figures(
    folder: Path,
    history: Mapping[str, Any],
    metrics: Mapping[str, Any],
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
) -> list[Path]:
    """Write those PNG files that the data allow and return their paths.

    history: updates and epochs of the run. metrics: of one split, that of examples and predictions;
    a head without metrics gets no picture.
    """
    pairs = list(zip(examples, predictions, strict=True))
    labelled, tagged = metrics["classification"] is not None, metrics["ner"] is not None
    labels = [(one.label, answer.label) for one, answer in pairs if one.label and labelled]
    scored = {
        "classification": scored_labels(pairs) if labelled else [],
        "ner": scored_entities(pairs) if tagged else [],
    }
    figures = {
        "curves.png": curves(history),
        "confusion.png": confusion(labels),
        "entity_f1.png": entity_f1(metrics["ner"]["types"] if tagged else {}),
        "reliability.png": reliability(scored),
    }
    return [_save(one, folder / name) for name, one in figures.items() if one is not None]


def confusion(labels: Sequence[tuple[str, str]]) -> Figure | None:
    """Gold and predicted labels as a matrix; with many classes a list of the most confused pairs.

    Rows are gold labels and shares add up to 1 in each; None without labels.
    """
    if not labels:
        return None
    names = sorted({name for pair in labels for name in pair})
    places = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for (gold, found), count in Counter(labels).items():
        counts[places[gold], places[found]] = count
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size, many = len(names), len(names) > _COUNTED
    side = 3.0 + min(size, _NAMED) * (0.17 if many else 0.45)
    figure = new_figure(side + (6.5 if many else 1.0), side)
    matrix, *rest = figure.subplots(
        1, 1 + many, width_ratios=[side, 5.0][: 1 + many], squeeze=False
    )[0]
    picture = matrix.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(size) if size <= _NAMED else []
    shown = [_shown(names[index]) for index in ticks]
    matrix.set_xticks(ticks, shown, rotation=90, fontsize=7 if many else 9)
    matrix.set_yticks(ticks, shown, fontsize=7 if many else 9)
    right = sum(left == other for left, other in labels)
    matrix.set(
        xlabel="predicted label",
        ylabel="gold label",
        title=f"Labels: {right:,} of {len(labels):,} right",
    )
    figure.colorbar(picture, ax=matrix, label="share of the gold label", shrink=0.5)
    for axes in rest:
        _list_pairs(axes, labels)
    if not many:
        _write_counts(matrix, counts, shares)
    return figure


def entity_f1(types: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """A bar for the strict F1 of each entity type, the best on top, with its gold count.

    Of more than _BARS types those with most gold entities are shown; None without types.
    """
    if not types:
        return None
    common = sorted(types, key=lambda name: -types[name]["support"])[:_BARS]
    names = sorted(common, key=lambda name: (types[name]["f1"], name))
    figure = new_figure(8, 2.0 + 0.24 * len(names))
    axes = figure.subplots()
    values = [100 * types[name]["f1"] for name in names]
    bars = axes.barh(range(len(names)), values, color=COLOURS["ner"], height=0.7)
    counts = [f"{100 * types[one]['f1']:.1f}  (n = {types[one]['support']:,})" for one in names]
    axes.bar_label(bars, counts, padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [_shown(name) for name in names], fontsize=8)
    some = "" if len(names) == len(types) else f", the {len(names)} most frequent of {len(types)}"
    axes.set(
        xlim=(0, 125),
        ylim=(-0.7, len(names) - 0.3),
        xlabel="strict F1 (%); n: gold entities",
        title=f"Entity types{some}",
    )
    axes.set_xticks(range(0, 101, 20))
    return figure


def reliability(scored: Mapping[str, Scored]) -> Figure | None:
    """The share of right answers in each bin of their scores, for each head that has answers.

    On the diagonal a score is the probability of being right; None without answers.
    """
    titles = {"classification": "Labels", "ner": "Entities"}
    heads = [task for task in titles if scored.get(task)]
    if not heads:
        return None
    figure = new_figure(5.2 * len(heads), 5.6)
    grid = figure.subplots(2, len(heads), height_ratios=[3, 1], squeeze=False, sharex="col")
    centres = (np.arange(BINS) + 0.5) / BINS
    for column, task in enumerate(heads):
        found = Reliability.of(scored[task])
        above, below = grid[0, column], grid[1, column]
        above.bar(centres, 100 * found.shares, 1 / BINS, color=COLOURS[task], edgecolor="white")
        above.plot([0, 1], [0, 100], "--", color="black", label="calibrated")
        filled = found.counts > 0
        above.plot(
            found.scores[filled],
            100 * found.shares[filled],
            "k.",
            label="mean score",
            clip_on=False,
        )
        above.set(xlim=(0, 1), ylim=(0, 100), ylabel="right answers (%)")
        above.set_title(f"{titles[task]}: calibration error {100 * (found.error or 0):.1f} points")
        above.legend(loc="upper left", fontsize=8)
        total = found.counts.sum()
        below.bar(centres, 100 * found.counts / total, 1 / BINS, color="0.6", edgecolor="white")
        below.set(xlabel="score", ylabel="answers (%)", ylim=(0, 100))
        below.set_title(f"{int(total):,} answers", fontsize=9)
    return figure


def _list_pairs(axes: Axes, labels: Sequence[tuple[str, str]]) -> None:
    wrong = Counter(pair for pair in labels if pair[0] != pair[1])
    totals = Counter(gold for gold, _ in labels)
    lines = [
        f"{count:>4} of {totals[gold]}: {_shown(gold)} → {_shown(found)}"
        for (gold, found), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    ]
    axes.set_axis_off()
    axes.set_title("Most confused (gold → predicted)", loc="left")
    axes.text(0, 1, "\n".join(lines[:_PAIRS]) or "none", va="top", fontsize=10, linespacing=1.5)


def _write_counts(axes: Axes, counts: Any, shares: Any) -> None:  # noqa: ANN401  integer, float [C, C]
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)


def _shown(name: str) -> str:
    """A label as matplotlib draws it: short, and no formula between dollar signs."""
    short = name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
    return short.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> Path:
    image = BytesIO()
    with warnings.catch_warnings():
        # Labels in a script that the font lacks are drawn as boxes; the table has them in full.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(image, format="png", dpi=DPI)
    write_bytes(path, image.getvalue())
    return path
