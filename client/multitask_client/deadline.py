"""One time limit over everything that a call does."""

from __future__ import annotations

import time

from multitask_client.errors import DeadlineExceeded


class Deadline:
    """Counts down from the moment it is made."""

    def __init__(self, timeout_s: float, url: str) -> None:
        self._timeout_s, self._url = timeout_s, url
        self._end_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds left; raises DeadlineExceeded when there are none."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(
                f"{self._url}: no answer within {self._timeout_s:g} s; raise deadline_s or send "
                "fewer texts a call",
                url=self._url,
            )
        return left_s

    def spend_s(self, seconds: float) -> float:
        """The same seconds if they fit; raises DeadlineExceeded at once if they do not."""
        if seconds >= self.left_s():
            raise DeadlineExceeded(
                f"{self._url}: not ready within {self._timeout_s:g} s", url=self._url
            )
        return seconds
