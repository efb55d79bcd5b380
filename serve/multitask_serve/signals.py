"""What SIGINT and SIGTERM do: the first stops in good order, a second one kills."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

Killers = list[Callable[[], None]]


class Stopped(BaseException):
    """The first SIGINT or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stop_on_signals(killers: Killers) -> None:
    """Have the first signal raise Stopped in the main thread, and further ones call `killers`."""
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise Stopped(number)
        for kill in killers:
            kill()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
