"""This user's running servers: one file for each, so that `publish` and `status` find them.

`<state>/servers/<pid>.json`, readable by its owner alone, for it holds the admin token. `start` and
`run` write it when the server is ready and remove it when it stops. What a launcher that was killed
left behind is ignored, and removed by the next look.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multitask_core.errors import ServeError

FOLDER = "servers"


@dataclass(frozen=True)
class Record:
    """One running server.

    pid: its launcher; began: that process's start in clock ticks since boot, because numbers are
    used again. grpc, http: host:port. metrics: the page's address. tls: "", "tls" or "mutual";
    certificate: the server's own, where it has one. started: seconds since the epoch.
    """

    pid: int
    began: int
    repository: str
    target: str
    grpc: str
    http: str
    metrics: str
    token: str
    tls: str
    certificate: str
    started: float


def write(state: Path, **facts: Any) -> Path:  # noqa: ANN401  fields of the record
    """Write the record of a server that this process has started; return its path."""
    pid = os.getpid()
    record = Record(pid=pid, began=_began(pid) or 0, started=time.time(), **facts)
    folder = state / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _write_new(folder, record)
    except OSError as error:
        raise ServeError(
            f"cannot write the server's record in {folder} ({error.strerror}): set XDG_CACHE_HOME "
            "to a folder that can be written"
        ) from error


def read_all(state: Path) -> list[Record]:
    """The servers that run, oldest first; records of dead ones are removed."""
    found = []
    for path in (state / FOLDER).glob("*.json"):
        record = _read(path)
        if record is not None and record.began == _began(record.pid):
            found.append(record)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda one: one.started)


def of_repository(state: Path, repository: Path) -> list[Record]:
    """The running servers that serve a repository."""
    wanted = repository.resolve()
    return [one for one in read_all(state) if Path(one.repository).resolve() == wanted]


def _write_new(folder: Path, record: Record) -> Path:
    """A second server of the same process gets a number."""
    text = json.dumps(asdict(record), indent=2) + "\n"
    number = 1
    while True:
        path = folder / f"{record.pid}{f'-{number}' if number > 1 else ''}.json"
        old = _read(path)
        if old is not None and old.began != record.began:
            path.unlink(missing_ok=True)  # of a dead process with this number
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        return path


def _read(path: Path) -> Record | None:
    try:
        return Record(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _began(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold spaces; the start is the 22nd field of all.
    return int(stat.rpartition(")")[2].split()[19])
