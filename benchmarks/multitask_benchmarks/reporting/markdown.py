"""The README's table, made of result files, and its place between two markers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from multitask_benchmarks.report import figures
from multitask_benchmarks.reporting.points import (
    LATENCIES,
    against,
    differing,
    load_key,
    points,
    rate_name,
    shown,
    subjects,
    title,
)
from multitask_benchmarks.results import Measured, Point, ResultFile, ScenarioRecord, read_results
from multitask_benchmarks.stats import brackets
from multitask_core.errors import ConfigError
from multitask_core.files import write_text

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
# Points that stand beside each other; more stand below each other.
_WIDEST = 6
COMMAND = "python -m multitask_benchmarks report"
_MADE_BY = re.compile(rf"<!-- made by: {re.escape(COMMAND)} (.+) -->")


def markdown(paths: Sequence[Path], scenarios: Sequence[str], folder: Path) -> str:
    """A section for each file and scenario with figures; links are relative to `folder`."""
    sections = []
    for path in paths:
        file = read_results(path)
        link = os.path.relpath(path.resolve(), folder.resolve())
        for name, record in chosen(file, scenarios).items():
            if record.measurements:
                sections.append(_section(file.model, name, record, link))
    if not sections:
        raise ConfigError(f"no figures in {', '.join(map(str, paths))}: nothing to make a table of")
    return "\n\n".join(sections)


def chosen(file: ResultFile, names: Sequence[str]) -> dict[str, ScenarioRecord]:
    """The scenarios that were asked for, in that order; all without a name."""
    if not names:
        return file.scenarios
    return {name: file.scenarios[name] for name in names if name in file.scenarios}


def rewrite(readme: Path, paths: Sequence[Path], scenarios: Sequence[str]) -> None:
    """Put the tables between the markers of a file; raises ConfigError where it has none."""
    text = readme.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{readme} has no {BEGIN} followed by {END}: put both where tables go")
    block = make_block(readme, paths, scenarios)
    write_text(readme, f"{before}{BEGIN}\n{block}\n{END}{after}")


def make_block(readme: Path, paths: Sequence[Path], scenarios: Sequence[str]) -> str:
    """What stands between the markers; its first line says how it was made."""
    folder = readme.resolve().parent
    words = [os.path.relpath(path.resolve(), folder) for path in paths]
    if scenarios:
        words += ["--scenario", *(f"'{name}'" if " " in name else name for name in scenarios)]
    made_by = f"<!-- made by: {COMMAND} {' '.join(words)} --readme {readme.name} -->"
    return f"{made_by}\n\n{markdown(paths, scenarios, folder)}\n"


def read_block(readme: Path) -> tuple[str, str] | None:
    """The block of a file and the arguments that made it; None where it has no filled block."""
    _, begin, rest = readme.read_text("utf-8").partition(BEGIN)
    block, end, _ = rest.partition(END)
    found = _MADE_BY.search(block)
    return (block.strip(), found[1]) if begin and end and found else None


def _section(model: str, name: str, record: ScenarioRecord, link: str) -> str:
    rate = rate_name(record.measurements)
    rounds = max(len(m.rounds) for one in record.measurements for m in one.metrics.values())
    if not rate and not any(
        name in one.metrics for one in record.measurements for name in LATENCIES
    ):
        return "\n".join([_caption(model, name, record, link, f"medians of {rounds} rounds "
            f"{brackets(rounds)}, ~ marks noisy ones"), "", *_plain(record)])  # fmt: skip
    others = differing(record)
    cells = _cells(record, rate)
    listed = ", ".join(f"{_escaped(subject)} {of} texts" for subject, of in others.items())
    differ = f", † other answers: {listed}" if listed else ""
    relative = f", × against {record.baseline}" if record.baseline else ""
    unit = f"{rate.replace('_per_s', '/s')}{relative} {brackets(rounds)}; " if rate else ""
    facts = f"{unit}medians of {rounds} rounds, ~ marks noisy ones{differ}"
    caption = _caption(model, name, record, link, facts)
    return "\n".join([caption, "", *_table(cells)])


def _cells(record: ScenarioRecord, rate: str) -> list[list[str]]:
    """A row for each subject and a column for each point, or turned where that is too wide."""
    where, others = points(record), differing(record)
    rows = [["", *map(title, where)]]
    for subject in subjects(record):
        row = [_cell(record, subject, point, rate) for point in where]
        if any(cell != "–" for cell in row):
            rows.append([f"{_escaped(subject)}{' †' if subject in others else ''}", *row])
    return [list(column) for column in zip(*rows, strict=True)] if len(where) > _WIDEST else rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]]


def _caption(model: str, name: str, record: ScenarioRecord, link: str, facts: str) -> str:
    machine = ", ".join([*(one.partition(",")[0] for one in record.machine["gpus"]),
        f"{record.machine['cpu']} with {record.machine['cpus']} CPUs"])  # fmt: skip
    return (
        f"**{_escaped(name)}**, {_escaped(model)}, {machine}: {facts} "
        f"([file]({link}), `{COMMAND.rpartition(' ')[0]} {record.kind}`, {record.date[:10]})"
    )


def _plain(record: ScenarioRecord) -> list[str]:
    """A column for each figure, of a scenario that has neither a rate nor latencies."""
    found = {name: one.unit for row in record.measurements for name, one in row.metrics.items()}
    head = [f"{name.replace('_', ' ')}{unit and f', {unit}'}" for name, unit in found.items()]
    rows = [
        (_escaped(one.subject), title(one.point),
         *(shown(one.metrics[name]) if name in one.metrics else "–" for name in found))
        for one in record.measurements
    ]  # fmt: skip
    return _table([("", "at", *head), *rows])


def _cell(record: ScenarioRecord, subject: str, point: Point, rate: str) -> str:
    measured = record.find(subject, point)
    if measured is None:
        return "–"
    parts = []
    if rate in measured.metrics:
        metric, times = measured.metrics[rate], against(record, measured, rate)
        ratio = f" ({times.median:.2f}× [{times.low:.2f}, {times.high:.2f}])" if times else ""
        noisy = times.noisy if times else metric.noisy
        parts.append(f"{figures(metric.median)}{ratio}{' ~' if noisy else ''}")
    latency = _latency(record, measured, alone=not parts)
    answered = measured.metrics.get("answered_share")
    if answered and min(answered.rounds) < 1:
        parts.append(f"{answered.median:.1%} answered")
    return "<br>".join([*parts, *([latency] if latency else [])]) or "–"


def _latency(record: ScenarioRecord, measured: Measured, *, alone: bool) -> str:
    """Percentiles where load decides them, or where there is no rate."""
    if not (alone or load_key(record)):
        return ""
    names = [name for name in LATENCIES if name in measured.metrics and name != "p95_ms"]
    return ", ".join(
        f"{name.removesuffix('_ms')} {figures(measured.metrics[name].median)} ms" for name in names
    )


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
