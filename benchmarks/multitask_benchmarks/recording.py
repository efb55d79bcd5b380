"""From a command's options to its scenario in the result file, its tables and its last line."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from multitask_benchmarks.report import console
from multitask_benchmarks.results import Measured, ScenarioRecord, write_scenario
from multitask_core import manifest
from multitask_core.errors import ConfigError
from multitask_core.signature import TEXT_MODEL

RESULTS = Path("benchmarks/results")
# Neither what these are nor where they point says what was measured.
_NOT_CONFIG = ("execute", "function", "parser", "kind", "scenario", "as_", "name", "output", "url")

# The folders of an absolute path, the first one by itself; a URL's are none.
_FOLDERS = re.compile(r"(?<![\w./:-])/([^/\s'\",;()]+)/(?:[^/\s'\",;()]+/)*")

# The option whose folders have no manifest and are small enough to be read whole.
_DATA = "data"


def add_result_arguments(parser: argparse.ArgumentParser, output: Path | None = RESULTS) -> None:
    """Where a command's result goes; an output of None writes no file unless one is given."""
    add = parser.add_argument
    add("--name", help="model's name in the result file (default: the folder's)")
    add("--as", dest="as_", metavar="SCENARIO",
        help="scenario's name in the result file (default: the command's)")  # fmt: skip
    add("--output", type=Path, default=output, metavar="DIR",
        help=f"folder of the result file (default: {output or 'none is written'})")  # fmt: skip


def make_record(
    options: argparse.Namespace,
    *,
    baseline: str = "",
    measurements: Sequence[Measured] = (),
    details: dict[str, Any] | None = None,
) -> ScenarioRecord:
    """A command's scenario; `options.kind` is the command.

    Messages in `details` lose the folders before a file's name: they are the machine's business.
    """
    return ScenarioRecord.now(
        options.kind,
        make_config(options),
        baseline=baseline,
        measurements=measurements,
        details=_without_folders(details),
    )


def make_config(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that decide what is measured, JSON-ready; paths are the machine's own business.

    A path becomes its last part, and `<option>_sha256` says what stands there: the hash of a file,
    the identity of a checkpoint, an artifact, or a repository's newest version, the hash of all
    names and contents of a folder of data.
    """
    config: dict[str, Any] = {}
    for key, value in sorted(vars(options).items()):
        if key in _NOT_CONFIG:
            continue
        values = value if isinstance(value, list) else [value]
        named = [_without_path(one, is_data=key == _DATA) for one in values]
        hashes = [digest for _, digest in named]
        several = isinstance(value, list)
        config[key] = [shown for shown, _ in named] if several else named[0][0]
        if any(hashes):
            config[f"{key}_sha256"] = hashes if several else hashes[0]
    found: dict[str, Any] = json.loads(json.dumps(config))
    return found


def model_name(options: argparse.Namespace) -> str:
    """The model's name in the result file: as given, else that of the folder it comes from."""
    if getattr(options, "name", None):
        return str(options.name)
    for key in ("artifact", "checkpoint", "encoder"):
        given = getattr(options, key, None)
        if given:
            return Path(given).resolve().name
    return "multitask"


def scenario_name(options: argparse.Namespace, default: str = "") -> str:
    """The scenario's name in the result file."""
    return str(options.as_ or default or options.kind.removeprefix("serving "))


def write_record(options: argparse.Namespace, record: ScenarioRecord, default: str = "") -> Path:
    """Write the scenario to its file; returns the file's path."""
    name = scenario_name(options, default)
    return write_scenario(options.output, model_name(options), name, record)


def finish(
    options: argparse.Namespace,
    record: ScenarioRecord,
    tables: Sequence[Table],
    brief: Any,  # noqa: ANN401  any JSON value
    *,
    default: str = "",
) -> int:
    """Write the scenario, print its tables and the last line; returns the exit status.

    default: the scenario's name where the options give none.
    """
    path = write_record(options, record, default)
    out = console()
    for table in tables:
        out.print(table)
    name = scenario_name(options, default)
    out.print(f"scenario {name!r} written to {path}", markup=False)
    line = {"scenario": name, "model": model_name(options), "file": str(path), "result": brief}
    print(json.dumps(line, ensure_ascii=False), flush=True)
    return 0


def require_positive(options: argparse.Namespace, *names: str) -> None:
    """Raise ConfigError for a setting that is not above 0."""
    for name in names:
        value = getattr(options, name)
        if min(value if isinstance(value, list) else [value]) <= 0:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} {value}: it must be above 0")


def _without_folders(value: Any) -> Any:  # noqa: ANN401  JSON, as it came
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(one) for one in value]
    return _FOLDERS.sub(_if_foreign, value) if isinstance(value, str) else value


def _if_foreign(found: re.Match[str]) -> str:
    """A graph's node may be called like a path: only what this machine has is one."""
    return "" if Path(f"/{found[1]}").is_dir() else found[0]


def _without_path(value: Any, *, is_data: bool) -> tuple[Any, str]:  # noqa: ANN401  any value
    """A value without its folders, and the hash of what it points to: DIR, FILE or NAME=DIR."""
    if not isinstance(value, (str, Path)):
        return value, ""
    left, equals, right = str(value).rpartition("=")
    path = Path(right)
    if not right or not (isinstance(value, Path) or path.exists()):
        return value, ""
    return f"{left}{equals}{path.resolve().name}", _hash(path, is_data=is_data)


def _hash(path: Path, *, is_data: bool) -> str:
    """What identifies a file, a checkpoint, an artifact or a repository; "" for anything else."""
    if path.is_file():
        return "" if os.access(path, os.X_OK) else manifest.sha256(path)
    versions = (path / TEXT_MODEL).glob(f"[0-9]*/{manifest.NAME}")
    newest = sorted(versions, key=lambda one: int(one.parent.name))[-1:]
    for folder in (path, *(one.parent for one in newest)):
        if (folder / manifest.NAME).is_file():
            value = json.loads((folder / manifest.NAME).read_text("utf-8"))
            return str(value.get("identity", ""))
    return _hash_all(path) if is_data and path.is_dir() else ""


def _hash_all(folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    held = {path.relative_to(folder).as_posix(): manifest.sha256(path) for path in files}
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()
