"""An open loop: requests go out at their times, from processes of their own.

    with Generators(2) as generators:
        calls = generators.run(endpoint, [Phase("half", 300, 10)])

Each generator is one event loop; two of them send some ten thousand requests a second where the
cores allow. How late they really were is part of the result.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import select
import selectors
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from types import TracebackType

from multitask_benchmarks.serving.arrivals import Phase, duration_s, schedule
from multitask_benchmarks.serving.calls import ANSWERED, Calls
from multitask_benchmarks.serving.endpoint import Connection, Endpoint
from multitask_client.errors import CallError
from multitask_core.errors import ClientError

_BARRIER: list[Barrier] = []
_CONNECT_S = 60.0
# Beyond the last request's deadline: processes that start, results that are sent back.
_SLACK_S = 60.0
# A generator that is late still has to start what it made and to read what came back.
_YIELD_EVERY = 16


@dataclass(frozen=True)
class Job:
    """What one generator does; number and generators say which share is its own."""

    endpoint: Endpoint
    phases: Sequence[Phase]
    seed: int
    number: int
    generators: int


class Generators:
    """Processes that send at given times; started once, since that takes a second.

    They ignore SIGINT, which reaches this process and ends them with it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._pool: Pool | None = None

    def __enter__(self) -> Generators:
        # gRPC does not survive a fork.
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(self.number)
        self._pool = context.Pool(self.number, initializer=_prepare, initargs=(barrier,))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._pool is not None
        self._pool.terminate()
        self._pool.join()

    def run(self, endpoint: Endpoint, phases: Sequence[Phase], seed: int = 0) -> Calls:
        """Send all phases' requests and wait for every answer; calls come in no special order.

        start_s is the intended time. Failures are noted, nothing is retried. Raises ClientError
        where nobody answers at the address, or where a generator does not come back.
        """
        assert self._pool is not None, "run outside the with block"
        jobs = [Job(endpoint, phases, seed, number, self.number) for number in range(self.number)]
        result = Calls()
        limit_s = duration_s(phases) + _CONNECT_S + endpoint.deadline_s + _SLACK_S
        try:  # what a killed process was to do is never done
            for calls in self._pool.map_async(_work, jobs, chunksize=1).get(limit_s):
                result.extend(calls)
        except multiprocessing.TimeoutError as error:
            raise ClientError(
                f"a load generator did not come back within {limit_s:.0f} s: its process was "
                "killed, for want of memory perhaps; run again with fewer requests at once"
            ) from error
        if not len(result):
            raise ClientError("no request came due: raise the rate or the seconds")
        return result


def _prepare(barrier: Barrier) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _BARRIER.append(barrier)


def _work(job: Job) -> Calls:
    """One generator's whole run; all begin together."""
    loop = asyncio.SelectorEventLoop(PreciseSelector())
    try:
        return loop.run_until_complete(_open_and_send(job, _BARRIER[-1]))
    finally:
        loop.close()


class PreciseSelector(selectors.EpollSelector):
    """epoll that waits to the microsecond.

    epoll_wait counts whole milliseconds, rounded up: every request would be late by half of one.
    select(2) knows microseconds, but no descriptor beyond 1,023: it is given epoll's own alone.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As its parent's, `timeout` in seconds."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


async def _open_and_send(job: Job, barrier: Barrier) -> Calls:
    endpoint = job.endpoint
    offsets = schedule(job.phases, job.seed * job.generators + job.number, 1 / job.generators)
    connection = await endpoint.open()
    try:
        await connection.send(0)
        gc.collect()
        gc.freeze()  # what was loaded so far is never garbage: collections stay short
        barrier.wait(_CONNECT_S)
        indices = [
            (job.number + k * job.generators) % len(endpoint.texts) for k in range(len(offsets))
        ]
        return await open_loop(connection, (offsets + time.monotonic()).tolist(), indices)
    finally:
        await connection.close()


async def open_loop(
    connection: Connection, due_s: Sequence[float], indices: Sequence[int]
) -> Calls:
    """Send each request when it is due on time.monotonic's clock, answered or not before it."""
    calls = Calls()
    cpu_s, start_s = time.process_time(), time.monotonic()
    under_way: set[asyncio.Task[None]] = set()
    for number, (moment_s, index) in enumerate(zip(due_s, indices, strict=True)):
        wait_s = moment_s - time.monotonic()
        if wait_s > 0 or number % _YIELD_EVERY == 0:
            await asyncio.sleep(max(0.0, wait_s))
        task = asyncio.create_task(_one(connection, index, moment_s, calls))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    calls.seconds = time.monotonic() - start_s
    calls.client_cpu_s = time.process_time() - cpu_s
    return calls


async def _one(connection: Connection, index: int, due_s: float, calls: Calls) -> None:
    status = ANSWERED
    sent_s = time.monotonic()
    try:
        await connection.send(index)
    except CallError as error:
        status = calls.failed(error)
    calls.add(index, due_s, sent_s, time.monotonic(), status)
