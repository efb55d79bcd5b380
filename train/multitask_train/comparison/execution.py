"""Runs of `fit` as subprocesses, several at once, that end with this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from multitask_core.errors import ConfigError
from multitask_core.locks import locked
from multitask_train.comparison import results
from multitask_train.comparison.cells import Run
from multitask_train.interrupt import InterruptedRunError

# A run saves its state before it ends.
GRACE_S = 60.0
TAIL_LINES = 8
_TAIL_BYTES = 8192
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Failure:
    """A run that did not finish. reason: in a few words; tail: the last lines of its log."""

    run: Run
    reason: str
    tail: list[str]


class Fits:
    """Subprocesses of `fit`; once stopped, none is started any more.

    runs: all that will be asked for. lock: descriptor that every subprocess inherits, see `held`.
    """

    def __init__(self, runs: Sequence[Run], lock: int) -> None:
        self._ended = {one.name: threading.Event() for one in runs}
        self._lock = lock
        self._guard = threading.Lock()
        self._alive: dict[subprocess.Popen[bytes], Run] = {}
        self._stopped = False

    @property
    def names(self) -> list[str]:
        """What runs now."""
        with self._guard:
            return [run.name for run in self._alive.values()]

    def run(self, run: Run) -> Failure | None:
        """Train one cell with one seed to the end and note its result.

        Waits for its teachers, which must have been asked for before.
        """
        try:
            for teacher in run.teachers:
                if teacher.name in self._ended:
                    self._ended[teacher.name].wait()
                if not teacher.fitted:
                    return Failure(run, f"{teacher.name}, which teaches it, did not finish", [])
            if not run.fitted:
                results.write_config(run)
                if failure := self._fit(run):
                    return failure
            results.harvest(run)
        except (OSError, ValueError) as error:
            return Failure(run, f"{type(error).__name__}: {error}", [])
        finally:
            self._ended[run.name].set()
        return None

    def stop(self) -> None:
        """End all subprocesses: SIGTERM, and SIGKILL for those that take longer than GRACE_S."""
        with self._guard:
            self._stopped = True
            alive = list(self._alive)
        for child in alive:
            child.terminate()
        deadline_s = time.monotonic() + GRACE_S
        try:
            for child in alive:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, deadline_s - time.monotonic()))
        finally:
            for child in alive:
                child.kill()

    def _fit(self, run: Run) -> Failure | None:
        with run.log.open("ab") as log:
            start = log.tell()
            child = self._start(run, log)
            try:
                status = child.wait()
            finally:
                with self._guard:
                    del self._alive[child]
        if status:
            reason = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
            return Failure(run, reason, tail(run.log, start))
        return None

    def _start(self, run: Run, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "multitask_train", "fit", "--config", str(run.config)]
        with self._guard:
            if self._stopped:
                raise InterruptedError("the comparison was stopped")
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._lock],
                # Out of reach of the terminal: a run takes a second signal as an order to stop at
                # once, and `stop` sends it the first.
                start_new_session=True,
            )
            self._alive[child] = run
        return child


def execute(
    runs: Sequence[Run],
    jobs: int,
    lock: int,
    *,
    finished: Callable[[Run, Failure | None], None],
    waiting: Callable[[list[str]], None],
) -> list[Failure]:
    """Do the runs, `jobs` at once; returns those that failed.

    finished: told of every run at its end. waiting: told every second what runs. Both are called
    in this thread. Whatever this thread raises, the subprocesses are ended first.
    """
    fits, failures = Fits(runs, lock), []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {pool.submit(fits.run, run): run for run in runs}
            for future in _as_completed(futures, lambda: waiting(fits.names)):
                failure = future.result()
                failures += [failure] if failure else []
                finished(futures[future], failure)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            fits.stop()
            raise
    return failures


def _as_completed(
    futures: dict[Future[Failure | None], Run], waiting: Callable[[], None]
) -> Iterator[Future[Failure | None]]:
    """Like concurrent.futures.as_completed, with a word every second."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
        yield from done
        waiting()


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the block, which raises InterruptedRunError then.

    One that this process was told to ignore, as by nohup, stays ignored.
    """
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        seen.append(number)
        raise KeyboardInterrupt

    heeded = [one for one in _STOPPING if signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, stop) for one in heeded}
    try:
        yield
    except KeyboardInterrupt:
        number = seen[0] if seen else signal.SIGINT
        raise InterruptedRunError("stopped; the same command goes on from there", number) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def held(folder: Path) -> contextlib.AbstractContextManager[int]:
    """Hold a folder for this process alone; yields the descriptor that holds it.

    Subprocesses that inherit the descriptor hold the folder too: after a SIGKILL of this process no
    second one trains in the folder of a run that still goes on. Raises ConfigError.
    """

    def refusal(holder: str) -> ConfigError:
        return ConfigError(
            f"{folder} is in use by another comparison, {holder}, or by a run that it left behind "
            f"when it was killed: wait for it, end it (pgrep -f '{folder}'), or name another "
            "--output"
        )

    return locked(folder / ".lock", refusal)


def tail(path: Path, start: int = 0, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log that say something; a progress bar counts with its last state."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(start, size - _TAIL_BYTES))
        text = stream.read().decode("utf-8", "replace")
    shown = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in shown if line][-lines:]
