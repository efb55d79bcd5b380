"""comparison.json, comparison.md and the lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from multitask_core.files import write_json, write_text
from multitask_train.comparison import results, stats
from multitask_train.comparison.cells import JOINT, SINGLE, Cell, Run, make_cells
from multitask_train.comparison.execution import Failure
from multitask_train.comparison.settings import Comparison
from multitask_train.comparison.stats import COLUMNS, Column, Summary, Table
from multitask_train.environment import environment

JSON, MARKDOWN, FIGURE = "comparison.json", "comparison.md", "comparison.png"
_TITLES = {
    SINGLE["classification"]: "intents alone",
    SINGLE["ner"]: "entities alone",
    JOINT: f"{JOINT.strategy} + {JOINT.balancer} (baseline)",
}


@dataclass(frozen=True)
class Report:
    """A comparison as far as it came. split: the one that the figures are of."""

    comparison: Comparison
    runs: list[dict[str, Any]]
    failures: Sequence[Failure]
    split: str
    table: Table

    @property
    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation of every cell, short enough for one line."""
        cells = {
            name: {key: one and _rounded(one["mean"], one["sd"]) for key, one in row.items()}
            for name, row in stats.as_json(self.table).items()
        }
        failed = [failure.run.name for failure in self.failures]
        return {
            "split": self.split,
            "baseline": JOINT.name,
            "seeds": list(self.comparison.settings.seeds),
            "cells": cells,
            "failed": failed,
        }


def make_report(comparison: Comparison, runs: Sequence[Run], failures: Sequence[Failure]) -> Report:
    """Put the finished runs together."""
    found: dict[Cell, dict[int, dict[str, Any]]] = {
        cell: {} for cell in make_cells(comparison.settings)
    }
    finished = [(run, result) for run in runs if (result := run.result())]
    for run, result in finished:
        found[run.cell][run.seed] = result["metrics"]
    tested = bool(finished) and all("test" in result["metrics"] for _, result in finished)
    split = "test" if tested else "dev"
    raw = [result for _, result in finished]
    return Report(comparison, raw, failures, split, stats.tabulate(found, split))


def write_report(report: Report) -> None:
    """Write the three files into the comparison's folder."""
    from multitask_train.comparison.figure import write_figure  # matplotlib and scipy load slowly

    output = report.comparison.settings.output
    write_figure(output / FIGURE, report.comparison.settings, report.table, report.split)
    write_text(output / MARKDOWN, markdown(report))
    # Each type's figures stand in the runs' own results: here they would bury the rest.
    raw = [{**run, "metrics": results.without_types(run["metrics"])} for run in report.runs]
    machine = {name: value for name, value in environment().items() if name != "threads"}
    value = {
        "settings": report.comparison.settings.model_dump(mode="json", exclude={"fit"}),
        "fit": report.comparison.fit.model_dump(mode="json"),
        "environment": machine,
        **report.summary,
        "cells": stats.as_json(report.table),
        "runs": raw,
    }
    write_json(output / JSON, value)


def markdown(report: Report) -> str:
    """The whole page."""
    settings = report.comparison.settings
    parts = [
        f"# Comparison {settings.output.name}",
        f"{len(report.table)} cells × {len(settings.seeds)} seeds on the {report.split} split: "
        "mean ± standard deviation over the seeds. Metrics are in percent; in brackets, the mean "
        f"difference in points from {JOINT.strategy} + {JOINT.balancer} with the same seed. Bold "
        "is the best of a column where that difference is larger than the standard deviation of "
        "the seeds' differences; with one seed none is. Less is better for calibration errors. "
        f"Seconds are those of the training, with {settings.jobs} run(s) at once.",
        format_table(report.table, len(settings.seeds)),
        f"![accuracy and entity F1 of every cell]({FIGURE})",
    ]
    if report.failures:
        parts.append("Not finished: " + ", ".join(one.run.name for one in report.failures) + ".")
    values = settings.model_dump(mode="json", exclude_unset=True)
    dumped = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    parts += [
        "## Settings",
        "In a file, `python -m multitask_train compare FILE` takes them.",
        f"```yaml\n{dumped}```",
    ]
    return "\n\n".join(parts) + "\n"


def format_table(table: Table, seeds: int) -> str:
    """A Markdown table whose columns are aligned in plain text too."""
    shown = [one for one in COLUMNS if any(row[one.key] for row in table.values())]
    best = {column.key: stats.best_cells(table, column) for column in shown}
    rows = [["cell", *(column.title for column in shown)]]
    for cell, row in table.items():
        texts = [_text(column, row[column.key], bold=cell in best[column.key]) for column in shown]
        rows.append([_title(cell, table, seeds), *texts])
    return "\n".join(_aligned(rows))


def result_line(metrics: dict[str, Any]) -> str:
    """What a run measured, in a few words."""
    split = "test" if "test" in metrics else "dev"
    parts = []
    for column in COLUMNS:
        value = column.read(metrics, split)
        if value is not None and column.better > 0:
            parts.append(f"{column.title} {column.scale * value:.2f}")
    return f"{split} {', '.join(parts)}"


def last_line(report: Report) -> str:
    """The summary as JSON."""
    return json.dumps(report.summary)


def _rounded(*values: float | None) -> list[float | None]:
    return [None if value is None else round(value, 5) for value in values]


def _title(cell: Cell, table: Table, seeds: int) -> str:
    title = _TITLES.get(cell, f"{cell.strategy} + {cell.balancer}")
    if cell.taught:
        title += f", taught by {' and '.join(_TITLES[SINGLE[task]] for task in cell.taught)}"
        title += ", several together" if cell.ensemble else ""
    found = max((one.seeds for one in table[cell].values() if one), default=0)
    return title if found == seeds else f"{title}, {found} of {seeds} seeds"


def _text(column: Column, one: Summary | None, *, bold: bool) -> str:
    """`98.43 ± 0.12 (+0.31)`; the brackets only where the difference says something."""
    if one is None:
        return "–"
    text = _number(column, one.mean)
    if one.sd is not None and column.better:
        text += f" ± {_number(column, one.sd)}"
    if bold:
        text = f"**{text}**"
    if one.difference is not None and column.better and (one.difference or one.difference_sd):
        text += f" ({_number(column, one.difference, sign='+')})"
    return text


def _number(column: Column, value: float, sign: str = "") -> str:
    shown = round(column.scale * value, column.digits) + 0.0  # no minus before a zero
    return f"{shown:{sign},.{column.digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    ruler = ["-" * width for width in widths]
    for row in (rows[0], ruler, *rows[1:]):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
