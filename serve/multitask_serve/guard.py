"""Runs one command and leaves nothing of it behind, even when its asker is killed.

    python -I -S guard.py LIFELINE_FD GRACE_S group|child LEFTOVERS COMMAND ARGUMENT…

LIFELINE_FD is the read end of a pipe whose write end only the asking process holds. When that says
"t", or closes because the process died of whatever cause, the command gets SIGTERM and, GRACE_S
seconds later, SIGKILL; "k" means SIGKILL at once. `group` gives the command a process group of its
own, which is killed when the command has ended. Files that match the pattern LEFTOVERS are deleted
then. The exit status is the command's, 128 + n when signal n ended it.

PR_SET_PDEATHSIG alone would not do: it watches the parent's thread, not its process, knows no
grace, and a Triton stub that hangs in native code outlives the server that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def main(arguments: list[str]) -> int:
    """Run the command to its end; return its exit status."""
    lifeline, grace_s, own_group = int(arguments[0]), float(arguments[1]), arguments[2] == "group"
    leftovers, command = arguments[3], arguments[4:]
    wake = _wake_on_signals()
    parent = os.getpid()
    try:
        child = subprocess.Popen(
            command,
            start_new_session=own_group,
            preexec_fn=lambda: _die_with(parent),  # this process has one thread: safe
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    _supervise(child, lifeline, wake, grace_s, own_group)
    if own_group:
        _kill(child, own_group)
    for path in glob.glob(leftovers):  # noqa: PTH207  a pattern with an absolute path
        Path(path).unlink(missing_ok=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _supervise(
    child: subprocess.Popen[bytes], lifeline: int, wake: int, grace_s: float, own_group: bool
) -> None:
    """Wait for the command; pass on what the lifeline says."""
    watched, told = [lifeline, wake], False
    deadline_s: float | None = None
    while child.poll() is None:
        rest_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        ready, _, _ = select.select(watched, [], [], rest_s)
        if wake in ready:
            # Ctrl-C reaches the whole foreground group: the command already knows.
            told = told or signal.SIGINT in os.read(wake, 64)
        if lifeline in ready:
            order = os.read(lifeline, 1)
            if not order:
                watched.remove(lifeline)
            if order == b"k":
                deadline_s = 0.0
            elif deadline_s is None:
                deadline_s = time.monotonic() + grace_s
                if not told:
                    child.terminate()
        if deadline_s is not None and time.monotonic() >= deadline_s:
            _kill(child, own_group)
            child.wait()


def _wake_on_signals() -> int:
    """Return a descriptor from which the numbers of arriving signals can be read."""
    wake, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    # SIGTERM too: only the lifeline ends a guard, or the command would be left alone.
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return wake


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the guard dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def _kill(child: subprocess.Popen[bytes], own_group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if own_group:
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
