"""A process for each engine: its memory and CPU time are its own, and its crash is nobody else's.

Engines do not share thread pools or allocators this way. One works at a time, the others sleep.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from multitask_benchmarks.engines.bench import Bench, Sample, Warm
from multitask_benchmarks.engines.catalogue import Subject
from multitask_benchmarks.engines.flops import ModelShape
from multitask_benchmarks.engines.runners import Source
from multitask_core.batching import RowLogits, Rows
from multitask_core.errors import MultiTaskError

_STOP_S = 10.0
# Of a call, beside what it is to measure: TensorRT and compilers take minutes, a hang for ever.
LIMIT_S = 1800.0


class EngineError(MultiTaskError):
    """An engine cannot do what it was asked, or its process is gone; the message says why."""


class Process:
    """An object of another process. make: creates it there at once, with the arguments given."""

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> None:
        """Wait until the object is there; raises EngineError as `call` does."""
        self.call("")

    def call(self, method: str, *arguments: object, limit_s: float = LIMIT_S) -> Any:  # noqa: ANN401
        """Call a method there; raises EngineError with what it raised, or how it ended.

        A process that has not answered after `limit_s` is ended.
        """
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(limit_s):
                self._process.kill()
                raise EngineError(f"its process did not answer within {limit_s:.0f} s")
            fine, value = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(_STOP_S)
            raise EngineError(f"its process ended with code {self._process.exitcode}") from error
        if not fine:
            raise EngineError(value)
        return value

    def close(self) -> None:
        """End the process."""
        self._connection.close()  # which it takes for the end
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class RemoteBench:
    """A `Bench` in a process of its own."""

    def __init__(self, subject: Subject, source: Source) -> None:
        self._process = Process(Bench, subject, source)

    def ready(self) -> None:
        """Wait until its process has loaded the engine's libraries."""
        self._process.ready()

    def open(self) -> dict[str, Any]:
        """Load the model."""
        facts: dict[str, Any] = self._process.call("open")
        return facts

    def logits(self, rows: Rows) -> list[RowLogits]:
        """Answer rows once."""
        logits: list[RowLogits] = self._process.call("logits", rows)
        return logits

    def warm(self, key: str, batches: Sequence[Rows], longest_s: float) -> Warm:
        """Prepare a point."""
        warm: Warm = self._process.call("warm", key, batches, longest_s)
        return warm

    def measure(self, key: str, seconds: float) -> Sample:
        """Time a point that is warm."""
        sample: Sample = self._process.call("measure", key, seconds, limit_s=LIMIT_S + seconds)
        return sample

    def close(self) -> None:
        """End the process."""
        self._process.close()


class RemoteGemms:
    """`Gemms` in a process of its own."""

    def __init__(self, shape: ModelShape, device: str, source: Source) -> None:
        self._process = Process(_make_gemms, shape, device, source)

    def ready(self) -> None:
        """Wait until its process has loaded torch; raises EngineError."""
        self._process.ready()

    def rate(self, precision: str, seconds: float) -> float:
        """The peak in GFLOP/s."""
        rate: float = self._process.call("rate", precision, seconds, limit_s=LIMIT_S + seconds)
        return rate

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _make_gemms(shape: ModelShape, device: str, source: Source) -> object:
    from multitask_benchmarks.engines.gemms import Gemms  # torch, in that process alone

    return Gemms(shape, device, source)


def _serve(
    connection: Connection, make: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    """Make the object, then answer calls until the other side closes; "" asks for nothing.

    It is made before it is asked for anything, so that processes load their libraries side by side.
    """
    try:
        target, fault = make(*arguments), ""
    except KeyboardInterrupt:
        return
    except BaseException as error:  # noqa: BLE001  of whatever kind: each call tells the caller
        target, fault = None, _message(error)
    while True:
        try:
            method, given = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer: tuple[bool, object] = not fault, fault
            if method and not fault:
                answer = True, getattr(target, method)(*given)
        except KeyboardInterrupt:
            return
        except BaseException as error:  # noqa: BLE001  of whatever kind: the caller decides
            answer = False, _message(error)
        connection.send(answer)


def _message(error: BaseException) -> str:
    """The toolkit's own errors say enough; others are named, with the place they came from."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MultiTaskError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} (in {frame.name})"
