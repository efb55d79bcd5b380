"""Results for people: tables on standard output, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multitask_benchmarks import stats
from multitask_benchmarks.rounds import Result
from multitask_benchmarks.stats import NOISY_SPREAD, Estimate

_PIPE_WIDTH = 120


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def progress_console() -> Console:
    """Standard error, which leaves standard output to results."""
    return Console(stderr=True)


def results_table(results: Sequence[Result], baseline: str) -> Table:
    """One row for each size and subject, grouped by size."""
    rounds = len(results[0].cell.rounds)
    table = Table(
        title=f"Medians over {rounds} interleaved rounds {brackets(rounds)}",
        caption="size: concurrent callers of the server, or texts in one call in process; speedup: "
        f"texts/s against {baseline}; ~ marks rounds that differ by more than {NOISY_SPREAD:.0%}",
    )
    table.add_column("size", justify="right")
    table.add_column("subject", no_wrap=True)
    for title in ("p50 ms", "p95 ms", "p99 ms", "texts/s", "speedup", "mean batch"):
        table.add_column(title, justify="right")
    for index, result in enumerate(results):
        last = index + 1 == len(results) or results[index + 1].cell.size != result.cell.size
        table.add_row(*_row(result), end_section=last)
    return table


def _row(result: Result) -> tuple[str, ...]:
    batches = result.cell.mean_batches
    return (
        str(result.cell.size),
        result.cell.subject + (" ~" if result.noisy else ""),
        interval(result.p50_ms),
        *(cell(one and one.median) for one in (result.p95_ms, result.p99_ms)),
        interval(result.texts_per_s),
        interval(result.speedup) if result.speedup else "1",
        figures(sum(batches) / len(batches)) if batches else "",
    )


def interval(value: Estimate) -> str:
    """`1.95 [1.90, 2.01]`, its bracket kept from rich's markup."""
    return f"{figures(value.median)} \\[{figures(value.low)}, {figures(value.high)}]"


def brackets(rounds: int) -> str:
    """What an interval's bracket holds, kept from rich's markup."""
    return escape(stats.brackets(rounds))


def figures(value: float) -> str:
    """About three significant figures: `1.95`, `19.5`, `1,950`."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def facts_table(title: str, facts: Sequence[tuple[str, str]]) -> Table:
    """Two columns: what and how much."""
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for what, value in facts:
        table.add_row(what, value)
    return table


def make_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = ""
) -> Table:
    """A table whose first column is text and whose numbers have about three figures."""
    table = Table(title=title, caption=caption or None)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=not index)
    for row in rows:
        table.add_row(*map(cell, row))
    return table


def agreement_table(agreement: Mapping[str, Mapping[str, Any]], reference: str) -> Table:
    """How many answers of each subject are the reference's."""
    rows = [
        (name, one["texts"], one["labels_equal"], one["entities_equal"], one["all_equal"])
        for name, one in agreement.items()
    ]
    columns = ("subject", "texts", "same label", "same entities", "same answer")
    return make_table(f"Answers against those of {reference}", columns, rows)


def cell(value: object) -> str:
    """A value as people read it; a dash for None."""
    if value is None:
        return "–"
    return figures(value) if isinstance(value, float) else str(value)
