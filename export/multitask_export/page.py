"""The parity report for people: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from multitask_core.files import write_text
from multitask_core.page import document, row
from multitask_export import parity
from multitask_export.parity import BINS
from multitask_export.variants import VARIANTS

REPORT = "parity.json"
PAGE = "parity.html"

_COLUMNS = (
    "variant", "serves", "size", "operators", "largest difference", "labels changed",
    "sentences with changed entities", "entities changed", "accuracy", "entity F1",
)  # fmt: skip


def write(
    path: Path,
    report: Mapping[str, Mapping[str, Any]],
    targets: Mapping[str, str],
    provenance: Mapping[str, str],
) -> None:
    """Write the page: a table of variants, then histograms of logit differences."""
    report = parity.measured(report)
    good = {name: figures for name, figures in report.items() if "refused" not in figures}
    rows = "".join(_row(name, figures, targets) for name, figures in good.items())
    head = "".join(f"<th>{title}</th>" for title in _COLUMNS)
    refused = "".join(
        f"<p class=bad><b>{escape(name)}</b> was left out: {escape(figures['refused'])}</p>"
        for name, figures in report.items()
        if name not in good
    )
    plots = "".join(_plots(name, figures) for name, figures in good.items())
    origin = ", ".join(
        f"{name.replace('_', ' ')} {value[:12]}" for name, value in provenance.items()
    )
    body = (
        "<h1>Parity with the checkpoint</h1>"
        f"<p class=note>{escape(origin)}. Brackets are 95 % bootstrap intervals of the "
        "change. FP16 rows and plots show the graph with every value between its nodes rounded "
        "to FP16.</p>"
        f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>{refused}{_notes(good)}"
        "<h2>Differences of logits</h2><p class=note>How many logits differ by how much "
        f"(logarithmic axis).</p><div class=plots>{plots}</div>"
    )
    write_text(path, document("Parity report", body))


def _row(name: str, figures: Mapping[str, Any], targets: Mapping[str, str]) -> str:
    serves = ", ".join(target for target, variant in targets.items() if variant == name)
    judged = parity.judged(figures)
    largest = max(judged["class_difference"], judged["token_difference"])
    cells = (
        name,
        serves,
        f"{figures['bytes'] / 1e6:.1f} MB",
        str(sum(figures["operators"].values())),
        f"{largest:.1e}",
        f"{judged['labels_changed']} of {judged['sentences']}",
        f"{judged['entities_changed']} of {judged['sentences']}",
        f"{judged['spans_changed']} of {judged['spans']}",
        _change(judged["accuracy"]),
        _change(judged["f1"]),
    )
    return row(cells, VARIANTS[name.split()[0]].reason)


def _change(change: Mapping[str, float] | None) -> str:
    if change is None:
        return "–"
    difference = change["after"] - change["before"]
    if change["low"] == change["high"] == difference == 0:
        return f"{change['after']:.2f}"
    return (
        f"{change['after']:.2f} ({difference:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}])"
    )


def _notes(report: Mapping[str, Mapping[str, Any]]) -> str:
    notes = []
    for name, figures in report.items():
        if "recipe" in figures:
            notes.append(f"{name}: {figures['recipe']}")
        if figures.get("kept_in_fp32"):
            cut = "" if figures["search_finished"] else " (the search ran out of tries)"
            notes.append(f"{name} keeps in FP32{cut}: {', '.join(figures['kept_in_fp32'])}")
        if "allowed" in figures:
            notes.append(
                f"{name} failed ({figures['failed']}) and was allowed: {figures['allowed']}"
            )
    return "".join(f"<p>{escape(note)}</p>" for note in notes)


def _plots(name: str, figures: Mapping[str, Any]) -> str:
    return "".join(
        f"<figure><figcaption>{escape(name)}: {head}</figcaption>{_histogram(counts)}</figure>"
        for head, counts in figures["histogram"].items()
    )


def _histogram(counts: list[int]) -> str:
    """Bars over the decades; the first bin holds everything below the smallest edge."""
    width, height, step = 8 * len(counts), 80, 8
    most = max([*counts, 1])
    bars = "".join(
        f'<rect class=bar x="{step * index}" y="{height - height * count / most:.1f}" '
        f'width="{step - 1}" height="{height * count / most:.1f}">'
        f"<title>{count} up to {BINS[index]:.1e}</title></rect>"
        for index, count in enumerate(counts)
    )
    labels = "".join(
        f'<text x="{step * index}" y="{height + 14}" font-size="10" fill="currentColor">'
        f"1e{exponent}</text>"
        for index, exponent in ((1, -8), (13, -5), (25, -2), (37, 1))
    )
    return f'<svg width="{width + 20}" height="{height + 20}" role="img">{bars}{labels}</svg>'
