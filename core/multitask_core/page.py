"""Self-contained HTML pages: one style for light and dark screens and for phones, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; --line: #ddd; --note: #666; --bad: #a00; --bar: #47a; }
@media (prefers-color-scheme: dark) {
  :root { --line: #444; --note: #aaa; --bad: #f88; --bar: #7ad; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; }
table { border-collapse: collapse; } th, td { padding: .3em .8em; text-align: right; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; }
.plots { display: flex; flex-wrap: wrap; gap: 1em 2em; } figure { margin: 0; }
figure svg { max-width: 100%; height: auto; }
.bad { color: var(--bad); } .note { color: var(--note); } rect.bar { fill: var(--bar); }
code { overflow-wrap: anywhere; }
"""


class Link(NamedTuple):
    """A cell that leads to another place of the page; target: that element's id."""

    text: str
    target: str


def document(title: str, body: str) -> str:
    """A page around `body`, which is HTML; the title is text."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        f'content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>{body}</html>\n"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Link]]) -> str:
    """A table of texts and links, which scrolls by itself where the screen is narrow."""
    head = "".join(f"<th>{escape(one)}</th>" for one in columns)
    body = "".join(row(cells) for cells in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def row(cells: Sequence[str | Link], title: str = "") -> str:
    """A row of texts and links; the title shows when the pointer rests on it."""
    hint = f' title="{escape(title, quote=True)}"' if title else ""
    return f"<tr{hint}>" + "".join(f"<td>{_cell(one)}</td>" for one in cells) + "</tr>"


def _cell(content: str | Link) -> str:
    if isinstance(content, Link):
        return f'<a href="#{escape(content.target, quote=True)}">{escape(content.text)}</a>'
    return escape(content)


def note(text: str) -> str:
    """A paragraph in small voice."""
    return f"<p class=note>{escape(text)}</p>"
