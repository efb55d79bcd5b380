"""Reads Triton's log: what to tell people, what to leave out, and why a model did not load."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from multitask_core.errors import MultiTaskError, ServeError

_REMEMBERED_LINES = 10_000
_KEPT_LOGS = 20

# On a server without a GPU these come with every start and mean nothing.
_HARMLESS_WITHOUT_GPU = (
    "Unable to allocate pinned system memory",
    "CudaDriverHelper has not been initialized",
    "DCGM unable to start",
    "Failed to initialize NVML",
)
_RECORD = re.compile(r"([IWEF])\d{4} [\d:.]+ \d+ (\S+?:\d+)\] ?(.*)", re.DOTALL)
_STATUS = re.compile(
    r"(?:Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown|Already exists)"
    r"(?: -|:) "
)
_FAILURES = (
    re.compile(r"failed to load '([^']+)' version \d+: (.*)", re.DOTALL),
    re.compile(r"failed to load model '([^']+)': (.*)", re.DOTALL),
    re.compile(r"Poll failed for model directory '([^']+)': (.*)", re.DOTALL),
)
_CREATING = re.compile(r"error: creating server: (.*)")
_PROTOBUF = re.compile(r"\[libprotobuf ERROR [^\]]*\] (?:Error parsing text-format \S+: )?(.*)")
_LOADING = re.compile(r"loading: (.+):\d+$")
_LOADED = re.compile(r"(?:successfully loaded|failed to load) '([^']+)'")


class Record(NamedTuple):
    """One line of Triton's own log."""

    severity: str  # I, W, E or F
    source: str  # file:line
    message: str

    @property
    def is_problem(self) -> bool:
        """Whether the line is a warning or worse."""
        return self.severity != "I"

    @property
    def is_harmless_without_gpu(self) -> bool:
        """Whether a server without a GPU always says so."""
        return any(text in self.message for text in _HARMLESS_WITHOUT_GPU)


def parse(line: str) -> Record | None:
    """Return the line's record, None for a table's row or what a library printed."""
    match = _RECORD.fullmatch(line)
    if match is None:
        return None
    severity, source, message = match.groups()
    return Record(severity, source, _unquote(message))


def find_failures(lines: Iterable[str]) -> dict[str, str]:
    """Return why each model that failed to load did: its own message, on one line."""
    failures: dict[str, str] = {}
    detail = ""
    for line in lines:
        record = parse(line)
        if record is None:
            protobuf = _PROTOBUF.search(line)
            detail = protobuf.group(1) if protobuf else detail
            continue
        for pattern in _FAILURES:
            match = pattern.match(record.message)
            if match:
                reason = _own_message(match.group(2)) + (f": {detail}" if detail else "")
                failures.setdefault(match.group(1), reason)
                detail = ""
    return failures


def still_loading(lines: Iterable[str]) -> list[str]:
    """Return the models whose loading was begun and not ended."""
    begun: dict[str, None] = {}
    for record in filter(None, map(parse, lines)):
        begin, end = _LOADING.match(record.message), _LOADED.match(record.message)
        if begin:
            begun[begin.group(1)] = None
        if end:
            begun.pop(end.group(1), None)
    return list(begun)


def last_error(lines: Iterable[str]) -> str:
    """Return the most telling line of a server that ended without naming a model."""
    found = ""
    for line in lines:
        record = parse(line)
        creating = _CREATING.search(line)
        if record and record.severity in "EF" and not record.is_harmless_without_gpu:
            found = record.message
        elif creating or (not record and not found and line.strip() and not line.startswith("|")):
            found = _own_message(creating.group(1)) if creating else line.strip()
    return " ".join(found.split())


class LogFile:
    """A log that is still being written, read line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._offset = 0
        self._partial = b""

    def read_new(self) -> list[str]:
        """Return the lines completed since the last call; the newest of all stay in `lines`."""
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        self._offset += len(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        new = [line.decode(errors="replace") for line in whole]
        self.lines.extend(new)
        return new


def new_log(folder: Path) -> Path:
    """Return the path of a new log; the oldest ones are deleted."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("triton-*.log"))[: 1 - _KEPT_LOGS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise ServeError(
            f"cannot keep logs in {folder} ({error.strerror}): set XDG_CACHE_HOME to a folder that "
            "can be written"
        ) from error
    return folder / f"triton-{datetime.now():%Y%m%d-%H%M%S-%f}.log"


def _unquote(message: str) -> str:
    """Undo the quoting (as JSON) with which Triton keeps a message on one line."""
    if message.startswith('"'):
        try:
            return str(json.loads(message))
        except ValueError:
            return message
    return message


def _own_message(reason: str) -> str:
    """Strip Triton's status, the traceback and the name of the toolkit's own exceptions."""
    reason = _STATUS.sub("", reason, count=1) if _STATUS.match(reason) else reason
    reason = " ".join(reason.split("\n\nAt:\n")[0].split())
    name, separator, rest = reason.partition(": ")
    ours = name.rpartition(".")[2] in _toolkit_errors()
    return rest if separator and ours else reason


def _toolkit_errors() -> set[str]:
    """Return the names whose messages are written for people and need no class name."""
    names, todo = {"TritonModelException"}, [MultiTaskError]
    while todo:
        error = todo.pop()
        names.add(error.__name__)
        todo.extend(error.__subclasses__())
    return names
