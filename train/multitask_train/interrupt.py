"""SIGINT and SIGTERM as a request: the update that runs ends, its state is saved, then we stop."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import NoReturn

from multitask_core.errors import MultiTaskError
from multitask_train.launch import is_launched

log = logging.getLogger(__name__)


class InterruptedRunError(MultiTaskError):
    """A signal ended the run; `status` is the exit status that shells expect, 128 + signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


class Interrupt:
    """Catches both signals inside a `with` block; the second one is not caught.

    Under a launcher it is, and means nothing: Ctrl-C is followed by the SIGTERM of a launcher that
    ends. Does nothing outside the main thread, where Python takes no handlers.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal = 0
        self._launched = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._launched = is_launched()
            self._before = {one: signal.signal(one, self._note) for one in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def stop(self, what: str) -> NoReturn:
        """Raise InterruptedRunError; `what` says how far the run came."""
        raise InterruptedRunError(
            f"{what}; the same command goes on from there", self.signal or signal.SIGTERM
        )

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal:
            return
        self.signal = number
        if self._launched:
            log.warning("stopping after this update")
            return
        self._release()
        log.warning("stopping after this update; once more stops at once and loses what is new")

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
