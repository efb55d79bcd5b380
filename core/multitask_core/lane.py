"""A side lane for long work: jobs run one after the other on a thread of their own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from multitask_core.errors import OverloadError

log = logging.getLogger(__name__)


class _Job(NamedTuple):
    """order: what the lane had done when the job came, plus its own size: a small job overtakes a
    large one, and a large one waits for no more work than came in the time that it would take.
    """

    order: int
    number: int
    size: int
    run: Callable[[], None]


class Lane:
    """Runs jobs on one thread.

    capacity: the work that may wait besides what runs, in the unit of the jobs' sizes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._guard = threading.Condition()
        self._waiting = self._done = self._count = 0
        self._runs = False
        threading.Thread(target=self._work, name="lane", daemon=True).start()

    def submit(self, size: int, run: Callable[[], None]) -> None:
        """Queue a job; OverloadError where too much work waits.

        What a job raises is logged, and the lane goes on.

        Where nothing waits a job of any size is taken; it leaves half of the room to others, which
        overtake it.
        """
        with self._guard:
            if self._waiting and self._waiting + size > self._capacity:
                raise OverloadError(
                    f"too many word pieces of long requests wait, {self._waiting:,} with "
                    f"{size:,} more, at most {self._capacity:,} may: send this one again later, or "
                    "to another server"
                )
            self._waiting += self._counted(size)
            self._count += 1
            self._jobs.put(_Job(self._done + size, self._count, size, run))

    def drain(self) -> None:
        """Wait until every job has run."""
        with self._guard:
            self._guard.wait_for(lambda: not (self._waiting or self._runs))

    def _counted(self, size: int) -> int:
        return max(1, min(size, self._capacity // 2))

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            with self._guard:
                self._waiting -= self._counted(job.size)
                self._runs = True
            try:
                job.run()
            except Exception:  # the caller may be gone; the next one's answer still waits
                log.exception("a job of the lane failed")
            finally:
                with self._guard:
                    self._runs = False
                    self._done += job.size
                    self._guard.notify_all()
