"""Matplotlib figures as inline SVG that takes the page's colours, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stands for the page's own text colour, which SVG calls currentColor and matplotlib does not know.
INK = "#010203"
# Okabe and Ito's colours, legible on white and on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#888888")
WIDTH_IN, HEIGHT_IN = 4.6, 3.4
STYLES = ("-", "--", ":", "-.")

Panel = Callable[["Axes"], None]


def draw(panel: Panel, alt: str) -> str:
    """One plot as an SVG element with a text for who cannot see it; its legend stands below."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text: small, and in the page's font
        "svg.hashsalt": alt,  # equal figures are equal to the byte, and ids differ between figures
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
        "xtick.color": INK, "ytick.color": INK, "axes.titlesize": "medium", "font.size": 9,
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        axes = figure.subplots()
        panel(axes)
        if axes.get_yscale() == "log":  # 60, not 6 × 10¹
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
        axes.patch.set_visible(False)
        axes.grid(alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            columns = max(1, int(WIDTH_IN / (0.55 + 0.075 * max(map(len, labels)))))
            figure.set_figheight(HEIGHT_IN + 0.2 * (len(labels) // columns))
            figure.legend(
                handles, labels, loc="outside lower center", ncols=columns, frameon=False,
                labelcolor=INK,
            )  # fmt: skip
        figure.patch.set_visible(False)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue(), alt)


def style(index: int) -> dict[str, Any]:
    """Colour and dashes of the line with this number."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": STYLES[index // len(COLOURS) % len(STYLES)],
    }


def _inline(text: str, alt: str) -> str:
    """Without prologue and metadata, whose addresses a page without network has no use for."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt, quote=True)}" ', 1)
