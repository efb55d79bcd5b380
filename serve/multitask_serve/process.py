"""A process that ends when this one ends: the asking side of guard.py."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_GUARD = Path(__file__).with_name("guard.py")


class GuardedProcess:
    """A command under a guard, which kills it `grace_s` seconds after it was asked to end.

    `own_group`: it is out of Ctrl-C's reach, and killed with its children; `leftovers`: a pattern
    of files to delete when it has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        grace_s: float,
        own_group: bool,
        leftovers: str = "",
        output: IO[bytes] | None = None,
        cwd: Path | None = None,
    ) -> None:
        read_end, self._lifeline = os.pipe()
        mode = "group" if own_group else "child"
        guard = [
            sys.executable,
            "-I",
            "-S",
            str(_GUARD),
            str(read_end),
            str(grace_s),
            mode,
            leftovers,
        ]
        try:
            self._guard = subprocess.Popen(
                [*guard, *command],
                env=environ,
                cwd=cwd,
                pass_fds=[read_end],
                start_new_session=own_group,
                stdin=subprocess.DEVNULL if own_group else None,
                stdout=output,
                stderr=output,
            )
        finally:
            os.close(read_end)

    @property
    def pid(self) -> int:
        """The guard's process id; the command is its only child."""
        return self._guard.pid

    def poll(self) -> int | None:
        """Return the command's exit status, None while it runs."""
        return self._guard.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end; return the exit status, None when the time was up first."""
        try:
            return self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Send the command SIGTERM, and SIGKILL when the grace period is over."""
        self._order(b"t")

    def kill(self) -> None:
        """Kill the command now."""
        self._order(b"k")

    def close(self) -> None:
        """Let go of the guard; a command that still runs is terminated."""
        if self._lifeline >= 0:
            lifeline, self._lifeline = self._lifeline, -1
            os.close(lifeline)

    def _order(self, order: bytes) -> None:
        # A guard that has ended no longer reads: nothing is left to do.
        with contextlib.suppress(OSError):
            os.write(self._lifeline, order)
