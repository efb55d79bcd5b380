"""Atomic writes: beside, fsync, rename, so that readers see the old file or the new one."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NEW = ".new."


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield an empty file that takes the place of `target` when the block ends without an error.

    The folder is created when missing. A process killed in between leaves it as `.<name>.new.*`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}{_NEW}")
    os.close(descriptor)
    stage = Path(name)
    try:
        yield stage
        _fsync(stage)
        stage.chmod(0o644)
        stage.replace(target)
    finally:
        stage.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically; its folder is created when missing."""
    with staged_file(path) as stage:
        stage.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  any JSON value
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `target` when the block ends without an error.

    No moment shows a half-written folder. An existing target is moved aside, replaced, then
    deleted; a process killed in between leaves it beside, as `.<name>.old.*`, and what it wrote as
    `.<name>.new.*`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{_NEW}"))
    try:
        yield stage
        stage.chmod(0o755)
        replace_folder(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Rename `source` to `target`, swapping out a folder that is already there."""
    for path in source.rglob("*"):
        if path.is_file():
            _fsync(path)
    _fsync(source)
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
        target.replace(old / target.name)
        try:
            source.replace(target)
        except BaseException:
            (old / target.name).replace(target)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        source.replace(target)
    _fsync(target.parent)


def recover_folder(target: Path) -> None:
    """Put back the folder that a process killed inside `replace_folder` left aside."""
    for old in target.parent.glob(f".{glob.escape(target.name)}.old.*"):
        if not target.exists() and (old / target.name).exists():
            (old / target.name).replace(target)
        shutil.rmtree(old, ignore_errors=True)


def remove_stages(folder: Path, name: str = "") -> None:
    """Delete what killed processes left half written in a folder, of `name` alone if given.

    The caller keeps others from writing there meanwhile.
    """
    for stage in folder.glob(f".{glob.escape(name) or '*'}{_NEW}*"):
        if stage.is_dir():
            shutil.rmtree(stage, ignore_errors=True)
        else:
            stage.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a large file where the file system allows it, else copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
