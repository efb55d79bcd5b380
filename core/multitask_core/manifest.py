"""`manifest.json`: what a folder holds, what it came from and how; checked before it is used.

Every stage writes one: a checkpoint names the hash of its data, an artifact its checkpoint. A
version folder of the Triton repository carries its artifact's manifest. The identity of a folder is
the hash of its manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.files import write_json

NAME = "manifest.json"
SCHEMA_VERSION = 1


class FileRecord(BaseModel):
    """What a file must be: its SHA-256 in hex and its size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int


class Manifest(BaseModel):
    """kind: checkpoint or artifact. files: relative path → record.

    parent: identity of what this was made from, "" where there is none. config: the resolved
    settings that made it. tools: package versions. report: what was measured on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    files: dict[str, FileRecord]
    parent: str = ""
    config: dict[str, Any] = {}
    tools: dict[str, str] = {}
    report: dict[str, Any] = {}
    schema_version: int = SCHEMA_VERSION

    @property
    def identity(self) -> str:
        """SHA-256 of the manifest in canonical JSON, and through it of every file it lists."""
        canonical = json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def write(
    folder: Path,
    kind: str,
    *,
    files: Iterable[Path],
    parent: str = "",
    config: Mapping[str, Any] | None = None,
    tools: Iterable[str] = (),
    report: Mapping[str, Any] | None = None,
) -> Manifest:
    """Hash `files` (inside `folder`), write the manifest beside them and return it.

    tools: names of installed packages whose versions are recorded.
    """
    records = {
        path.relative_to(folder).as_posix(): FileRecord(
            sha256=sha256(path), size=path.stat().st_size
        )
        for path in sorted(files)
    }
    versions = {name: metadata.version(name) for name in sorted(tools)}
    manifest = Manifest(
        kind=kind,
        files=records,
        parent=parent,
        config=dict(config or {}),
        tools=versions,
        report=dict(report or {}),
    )
    write_json(folder / NAME, {**manifest.model_dump(), "identity": manifest.identity})
    return manifest


def read(folder: Path, kind: str) -> Manifest:
    """Read a folder's manifest without looking at its files; raises ArtifactError."""
    path = folder / NAME
    try:
        value = json.loads(path.read_text("utf-8"))
        identity = value.pop("identity")
        _check_schema_version(path, value)
        manifest = Manifest.model_validate(value)
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder} holds no {NAME}, so it is no {kind} of this toolkit; name a folder that "
            f"{_MAKER.get(kind, 'it')} wrote"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if manifest.identity != identity:
        raise ArtifactError(f"{path} was edited after it was written; write the folder again")
    if manifest.kind != kind:
        raise ArtifactError(
            f"{folder} holds the manifest of kind {manifest.kind!r}; {kind!r} was asked for"
        )
    return manifest


def verify(folder: Path, kind: str, only: Iterable[str] | None = None) -> Manifest:
    """Read a manifest and check its files' sizes and hashes; raises ArtifactError naming the file.

    only: the files about to be used; without it all are checked.
    """
    manifest = read(folder, kind)
    for name in manifest.files if only is None else only:
        if name not in manifest.files:
            raise ArtifactError(f"{folder / name} is not listed in {NAME}: it was put there later")
        _check_file(folder / name, manifest.files[name])
    return manifest


def check_target(folder: Path, kind: str, ignored: Iterable[str] = ()) -> None:
    """Raise ConfigError where writing a folder would replace files that are no such folder's.

    ignored: names that may stand there.
    """
    if not folder.exists() or (folder / NAME).is_file():
        return
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - set(ignored):
        raise ConfigError(
            f"{folder} exists and is no {kind} of this toolkit; it would be replaced: name a new "
            "folder, or remove it yourself"
        )


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_schema_version(path: Path, value: Mapping[str, Any]) -> None:
    found = value.get("schema_version")
    if found != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {found!r}; this release reads {SCHEMA_VERSION}: write the "
            "folder again with it"
        )


def _check_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; its manifest lists it")
    size = path.stat().st_size
    if size != record.size:
        raise ArtifactError(
            f"{path} has {size:,} bytes, its manifest says {record.size:,}: it was cut short or "
            "changed; copy or write it again"
        )
    found = sha256(path)
    if found != record.sha256:
        raise ArtifactError(
            f"{path} has SHA-256 {found[:12]}…, its manifest says {record.sha256[:12]}…: its "
            "content was changed; copy or write it again"
        )


_MAKER = {
    "checkpoint": "`python -m multitask_train fit`",
    "artifact": "`python -m multitask_export`",
}
