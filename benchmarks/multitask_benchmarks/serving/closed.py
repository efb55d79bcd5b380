"""A closed loop: so many callers, each sending again as soon as it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import count

from multitask_benchmarks.load import run_all
from multitask_benchmarks.serving.calls import ANSWERED, Calls
from multitask_benchmarks.serving.endpoint import Connection, Endpoint
from multitask_benchmarks.stats import RoundStats
from multitask_client.errors import CallError

WARM_UP_S = 1.0
CAPACITY_S = 3.0

Ended = Callable[[], None]


def run_closed(
    endpoint: Endpoint, picks: Iterator[int], concurrency: int, *, keep: bool = False
) -> Calls:
    """Send the texts that `picks` names until it ends; nothing is retried, failures are noted.

    keep: keep the raw replies.
    """
    return asyncio.run(_run(endpoint, picks, concurrency, keep=keep))


def capacity(endpoint: Endpoint, callers: int) -> RoundStats:
    """What so many callers get out of the server; raises ClientError for a failure."""
    run_closed(endpoint, for_seconds(len(endpoint.texts), WARM_UP_S), callers).stats()
    return run_closed(endpoint, for_seconds(len(endpoint.texts), CAPACITY_S), callers).stats()


async def _run(endpoint: Endpoint, picks: Iterator[int], concurrency: int, *, keep: bool) -> Calls:
    connection = await endpoint.open()
    try:
        return await closed_loop(connection, picks, concurrency, keep=keep)
    finally:
        await connection.close()


async def closed_loop(
    connection: Connection,
    picks: Iterator[int],
    concurrency: int,
    *,
    keep: bool = False,
    ended: Ended | None = None,
) -> Calls:
    """The loop itself, on an open connection; `ended` is called after every call."""
    calls = Calls()
    start_s, cpu_s = time.monotonic(), time.process_time()
    callers = [_caller(connection, picks, calls, keep, ended) for _ in range(concurrency)]
    await run_all(callers)
    calls.seconds = time.monotonic() - start_s
    calls.client_cpu_s = time.process_time() - cpu_s
    return calls


async def _caller(
    connection: Connection, picks: Iterator[int], calls: Calls, keep: bool, ended: Ended | None
) -> None:
    for index in picks:
        reply, status = b"", ANSWERED
        start_s = time.monotonic()
        try:
            reply = await connection.send(index)
        except CallError as error:
            status = calls.failed(error)
        calls.add(index, start_s, start_s, time.monotonic(), status)
        if keep:
            calls.replies.append(reply)
        if ended:
            ended()


def once(texts: int, start: int = 0) -> Iterator[int]:
    """Every text once."""
    return iter(range(start, start + texts))


def for_seconds(texts: int, seconds: float, start: int = 0) -> Iterator[int]:
    """All texts from one on over and over until the time is up, which starts with the first one."""
    end_s = time.monotonic() + seconds
    for number in count(start):
        if time.monotonic() >= end_s:
            return
        yield number % texts
