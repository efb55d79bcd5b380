"""Result files and tables that all scenarios share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.table import Table

from multitask_benchmarks.machine import describe_machine
from multitask_benchmarks.report import console, figures
from multitask_benchmarks.run import file_name
from multitask_core.errors import ConfigError
from multitask_core.files import write_json
from multitask_core.manifest import sha256

SCHEMA_VERSION = 1
# Paths are machine's own business: a result file names folders and files, not where they stand.
_NOT_CONFIG = ("execute", "function", "scenario", "output", "repository", "peer", "artifact",
    "artifact_b", "checkpoint", "data", "name")  # fmt: skip


def make_record(options: argparse.Namespace, body: dict[str, Any]) -> dict[str, Any]:
    """What every result file says, and a scenario's own part."""
    data = Path(options.data)
    settings = {key: value for key, value in vars(options).items() if key not in _NOT_CONFIG}
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": options.scenario,
        "model": options.name or _model(options),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "config": {
            **settings,
            "data": data.name,
            "data_sha256": sha256(data) if data.is_file() else "",
        },
        **body,
    }


def write_record(options: argparse.Namespace, record: dict[str, Any]) -> Path:
    """Write `<model>-serving-<scenario>_<hardware>_<yyyymm>.json` atomically; return its path."""
    name = file_name({**record, "model": f"{record['model']}-serving-{record['scenario']}"})
    path = Path(options.output) / name
    write_json(path, record)
    return path


def finish(
    options: argparse.Namespace,
    record: dict[str, Any],
    tables: Sequence[Table],
    brief: Any,  # noqa: ANN401
) -> int:
    """Write the file, print the tables and the last line; returns the exit status."""
    path = write_record(options, record)
    out = console()
    for table in tables:
        out.print(table)
    out.print(f"written to {path}")
    line = {"scenario": record["scenario"], "model": record["model"], "file": str(path)}
    print(json.dumps({**line, "result": brief}, ensure_ascii=False), flush=True)
    return 0


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


def cell(value: object) -> str:
    """A value as people read it; a dash for None."""
    if value is None:
        return "–"
    return figures(value) if isinstance(value, float) else str(value)


def require_positive(options: argparse.Namespace, *names: str) -> None:
    """Raise ConfigError for a setting that is not above 0."""
    for name in names:
        value = getattr(options, name)
        if min(value if isinstance(value, list) else [value]) <= 0:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} {value}: it must be above 0")


def _model(options: argparse.Namespace) -> str:
    for name in ("artifact", "checkpoint"):
        folder = getattr(options, name, None)
        if folder:
            return str(folder.resolve().name)
    return "multitask"
