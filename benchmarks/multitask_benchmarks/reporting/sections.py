"""The report's page: every scenario with its plots, tables, machine and command."""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from multitask_benchmarks.reporting import published
from multitask_benchmarks.reporting.markdown import chosen
from multitask_benchmarks.reporting.overview import PUBLISHED, anchor, overview
from multitask_benchmarks.reporting.plots import plots
from multitask_benchmarks.reporting.points import (
    against,
    differing,
    noise,
    rate_name,
    shown,
    title,
)
from multitask_benchmarks.results import ResultFile, ScenarioRecord
from multitask_benchmarks.stats import NOISY_SPREAD
from multitask_benchmarks.suite.plan import find_command, find_flag, option_words
from multitask_core.errors import ConfigError
from multitask_core.page import document, note, table

_MOST_FACTS = 60


def page(files: Mapping[Path, ResultFile], scenarios: Sequence[str]) -> str:
    """All files' scenarios on one page."""
    kept = {path: replace(file, scenarios=chosen(file, scenarios)) for path, file in files.items()}
    parts = ["<h1>Benchmarks</h1>", note(_HOW_TO_READ), overview(kept)]
    for path, file in kept.items():
        for name, record in file.scenarios.items():
            parts.append(_scenario(path, file.model, name, record))
    parts += [
        f"<h2 id={PUBLISHED}>Beside published figures</h2>",
        note("What others published for GPUs; ours is the fastest engine at the same model "
            "shape, length and batch on a GPU of ours, which may be another one."),
        table(published.COLUMNS, published.rows(list(files.values()))),
    ]  # fmt: skip
    return document("Benchmarks", "".join(parts))


_HOW_TO_READ = (
    "Medians over interleaved rounds with 95 % bootstrap intervals in brackets; ~ marks rounds "
    f"that differ by more than {NOISY_SPREAD:.0%}. Figures of different scenarios come from "
    "different minutes of the machine: compare within a scenario, by its “against” column, which "
    "is formed round by round. The first table names who was fastest in each: the geometric mean "
    "of its ratios at all points, the lowest and the highest of them, and how many rates are "
    "noisy, as ratios where they have a baseline."
)


def _scenario(path: Path, model: str, name: str, record: ScenarioRecord) -> str:
    pictures = "".join(
        f"<figure>{svg}<figcaption class=note>{escape(caption)}</figcaption></figure>"
        for caption, svg in plots(name, record)
    )
    return (
        f'<h2 id="{escape(anchor(path, name), quote=True)}">{escape(model)}: {escape(name)}</h2>'
        + note(f"{_machine(record.machine)}. {record.date[:16].replace('T', ' ')}, {path.name}")
        + f"<p><code>{escape(command(record))}</code></p>"
        + "".join(f"<p><strong>{escape(line)}</strong></p>" for line in warnings(record))
        + (f"<div class=plots>{pictures}</div>" if pictures else "")
        + _measurements(record)
        + _not_run(record)
        + _facts(record)
    )


def _measurements(record: ScenarioRecord) -> str:
    if not record.measurements:
        return ""
    names = list(dict.fromkeys(name for one in record.measurements for name in one.metrics))
    rate = rate_name(record.measurements)
    relative = [f"{rate} against {record.baseline}"] if record.baseline and rate else []
    rows = []
    for one in record.measurements:
        times = against(record, one, rate) if relative else None
        ratio = f"{times.median:.2f} [{times.low:.2f}, {times.high:.2f}]" if times else "–"
        figures = [shown(one.metrics[name]) if name in one.metrics else "–" for name in names]
        rows.append((one.subject, title(one.point), *([ratio] if relative else []), *figures))
    return table(("subject", "at", *relative, *names), rows)


def warnings(record: ScenarioRecord) -> list[str]:
    """What a reader must know before the figures."""
    details = record.details
    found = []
    if details.get("finished") is False:
        found.append("Not finished, or found at fault: see the facts")
    failed = details.get("failed", 0) or details.get("verdict", {}).get("faults", 0)
    if failed:
        sent = details.get("sent") or details.get("requests", 0)
        found.append(f"{failed:,} of {sent:,} requests failed or were answered wrongly")
    found += [f"{name}: other answers to {of} texts" for name, of in differing(record).items()]
    noisy, judged = noise(record)
    if noisy > judged / 2:
        found.append(
            f"The machine was too noisy: {noisy} of {judged} figures differ by more than "
            f"{NOISY_SPREAD:.0%} between rounds; measure again when nothing else runs"
        )
    elif noisy:
        found.append(f"Do not lean on what ~ marks: {noisy} of {judged} figures are noisy")
    return found


def _not_run(record: ScenarioRecord) -> str:
    """What was asked for and is missing, with the reason: never folded away."""
    rows = list(record.details.get("not_run", {}).items())
    return table(("not run", "reason"), rows) if rows else ""


def _facts(record: ScenarioRecord) -> str:
    """What has no rounds, folded away; long series are left to the file."""
    rows = list(_flat("", record.details))
    left = f"{len(rows) - _MOST_FACTS} more in the file" if len(rows) > _MOST_FACTS else ""
    versions = record.machine.get("packages", {}).items()
    listed = table(("fact", "value"), rows[:_MOST_FACTS]) if rows else ""
    return (
        f"<details><summary>Facts, settings, versions</summary>{listed}{note(left) if left else ''}"
        + table(("setting", "value"), [(k, _short(v)) for k, v in record.config.items()])
        + table(("package", "version"), [(k, str(v)) for k, v in versions])
        + "</details>"
    )


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  any JSON value
    """Scalars with their path."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(f"{prefix} › {key}" if prefix else str(key), one)
    elif not isinstance(value, list) or (value and not isinstance(value[0], (list, Mapping))):
        yield prefix, _short(value)


def _short(value: Any) -> str:  # noqa: ANN401  any JSON value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _machine(machine: Mapping[str, Any]) -> str:
    git = machine.get("git") or {}
    changed = " with changes" if git.get("dirty") else ""
    commit = f", commit {git['commit'][:10]}{changed}" if git else ""
    flags = " ".join(machine.get("cpu_flags", []))
    parts = [
        *machine.get("gpus", []),
        f"{machine.get('cpu')}, {machine.get('cpus')} CPUs ({flags})",
        f"{machine.get('memory_gib')} GiB",
        str(machine.get("system")),
        f"Python {machine.get('python')}",
    ]
    return ", ".join(parts) + commit


def command(record: ScenarioRecord) -> str:
    """The command that made a scenario; folders and files by their names alone."""
    words = ["python", "-m", "multitask_benchmarks", *record.kind.split()]
    parser = _parser(record.kind)
    for name, value in record.config.items():
        if name.endswith("_sha256") or value is None or value in ("", []):
            continue
        action = find_flag(parser, name) if parser else None
        words += option_words(action, "--" + name.replace("_", "-"), value)
    return shlex.join(words)


@cache
def _parser(kind: str) -> ArgumentParser | None:
    """A command's own; None for one that another version had."""
    # The commands import this package's `page`, which imports this module.
    from multitask_benchmarks.__main__ import make_parser

    try:
        return find_command(make_parser(), kind.split(), "")
    except ConfigError:
        return None
