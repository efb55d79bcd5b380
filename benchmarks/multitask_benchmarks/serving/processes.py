"""CPU time and memory of a process and all below it, from Linux's /proc.

The kernel counts CPU time in ticks of 10 ms: read it seconds apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
_PSS = re.compile(r"^Pss: +(\d+) kB$", re.MULTILINE)
# The python backend's worker is given the path of its model.py, .../MODEL/VERSION/model.py.
_STUB = re.compile(r"(?:^|/)([^/]+)/(\d+)/model\.py$")


class Process(NamedTuple):
    """One process; cpu_s is user and system time since its start, memory is resident.

    The time includes that of children which have ended, so that a tree's sum loses nothing.
    """

    pid: int
    name: str
    cpu_s: float
    memory_mib: float


def tree(root: int) -> list[Process]:
    """The process and its descendants, parents first; those that end meanwhile are left out."""
    found: list[Process] = []
    todo = [root]
    while todo:
        pid = todo.pop()
        process = _read(pid)
        if process:
            found.append(process)
            todo.extend(children(pid))
    return found


def find(root: int, argument: str) -> int | None:
    """The first process at or below `root` whose command line has this argument, None if none.

    Of a line of such processes it is the last: a guard carries the command of what it guards.
    """
    found: int | None = None
    todo = [root]
    while todo:
        pid = todo.pop(0)
        if argument in _command(pid):
            found, todo = pid, []
        todo.extend(children(pid))
    return found


def pause(root: int) -> None:
    """Stop a tree's processes where they are, until `resume`.

    ValueError for a tree that holds this process, which could not resume it.
    """
    if os.getpid() in (process.pid for process in tree(root)):
        raise ValueError(f"process {root} cannot be paused: it holds the one that would resume it")
    _signal(root, signal.SIGSTOP)


def resume(root: int) -> None:
    """Let a paused tree go on."""
    _signal(root, signal.SIGCONT)


def _signal(root: int, number: int) -> None:
    for process in tree(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def cpu_s(root: int) -> float:
    """CPU time of the whole tree."""
    return sum(process.cpu_s for process in tree(root))


def pss_mib(root: int) -> float:
    """Memory of the whole tree in MiB, pages that processes share counted once (proc(5), Pss).

    Slower to read than `tree`: the kernel walks every mapping.
    """
    kib = 0
    for process in tree(root):
        with contextlib.suppress(OSError):  # ended meanwhile
            page = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            kib += sum(map(int, _PSS.findall(page)))
    return kib / 1024


def by_name(processes: list[Process]) -> dict[str, Process]:
    """Processes by name; those of equal name are told apart by a number, in order of their ids."""
    result: dict[str, Process] = {}
    for process in sorted(processes):
        name, number = process.name, 2
        while name in result:
            name, number = f"{process.name} #{number}", number + 1
        result[name] = process
    return result


class Sample(NamedTuple):
    """Memory of every process at one moment of time.monotonic's clock, in MiB by name."""

    at_s: float
    cpu_s: float
    memory_mib: Mapping[str, float]

    @property
    def total_mib(self) -> float:
        """All processes together; pages that they share count for each."""
        return sum(self.memory_mib.values())


class Watch:
    """Samples a tree in the background, from the beginning of a `with` block to its end."""

    def __init__(self, root: int, interval_s: float) -> None:
        self.samples: list[Sample] = []
        self._root, self._interval_s = root, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def sample(self) -> None:
        """Take one sample now."""
        now = by_name(tree(self._root))
        memory = {name: round(one.memory_mib, 2) for name, one in now.items()}
        total_cpu_s = sum(one.cpu_s for one in now.values())
        self.samples.append(Sample(time.monotonic(), total_cpu_s, memory))

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.sample()


def _read(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return None
    name, _, rest = stat.rpartition(")")  # a name may hold spaces and brackets of its own
    fields = rest.split()  # from field 3 of proc(5): utime, stime, cutime and cstime are 14 to 17
    ticks = sum(map(int, fields[11:15]))
    own = name.partition("(")[2]
    return Process(pid, _title(pid, own), ticks / _TICKS_PER_S, int(pages) * _PAGE_MIB)


def _title(pid: int, name: str) -> str:
    for argument in _command(pid):
        if match := _STUB.search(argument):
            return f"stub {match[1]}/{match[2]}"
    return name


def _command(pid: int) -> list[str]:
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return data.decode(errors="replace").rstrip("\0").split("\0")


def children(pid: int) -> list[int]:
    """The processes that a process started and that still run."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # the process has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # that thread has
                found += map(int, (task / "children").read_text().split())
    return found
