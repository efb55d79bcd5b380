"""A lock that is handed on in the order of arrival.

`threading.Lock` may be taken again at once by the thread that gave it back, so that a thread in a
loop starves the others.
"""

from __future__ import annotations

from collections import deque
from threading import Lock


class Turns:
    """A first-come, first-served lock, used as a context manager."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._waiting: deque[Lock] = deque()
        self._taken = False

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()  # it stays taken: the next in line has it now
            else:
                self._taken = False
