"""Results for people: tables on standard output, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from multitask_benchmarks.rounds import Result
from multitask_benchmarks.stats import Estimate

_PIPE_WIDTH = 120


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def progress_console() -> Console:
    """Standard error, which leaves standard output to results."""
    return Console(stderr=True)


def results_table(results: Sequence[Result], baseline: str) -> Table:
    """One row for each size and subject, grouped by size."""
    table = Table(
        title=f"Medians over {len(results[0].cell.rounds)} interleaved rounds [95 % interval]",
        caption="size: concurrent callers of the server, or texts in one call in process; "
        "~ marks rounds that differ by more than 15 %",
    )
    table.add_column("size", justify="right")
    table.add_column("subject")
    titles = ("p50 ms", "p95 ms", "p99 ms", "texts/s", f"× {baseline}", "mean batch")
    for title in titles:
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
        interval(result.p50_ms, 2),
        f"{result.p95_ms.median:.2f}",
        f"{result.p99_ms.median:.2f}",
        interval(result.texts_per_s, 0),
        interval(result.speedup, 2) if result.speedup else "1",
        f"{sum(batches) / len(batches):.1f}" if batches else "",
    )


def interval(value: Estimate, digits: int) -> str:
    """`1.95 [1.90, 2.01]`."""
    return f"{value.median:,.{digits}f} \\[{value.low:,.{digits}f}, {value.high:,.{digits}f}]"


def facts_table(title: str, facts: Sequence[tuple[str, str]]) -> Table:
    """Two columns: what and how much."""
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for what, value in facts:
        table.add_row(what, value)
    return table
