"""A closed loop of N callers, one text a request, each sending again as soon as it is answered.

Latency is measured in the caller, network and client included. Nothing is retried and the first
failure ends the run with its error, so a number stands only for answered requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from multitask_client import AsyncClient
from multitask_client.answers import Statistics
from multitask_core.errors import ClientError
from multitask_core.prediction import Prediction

DEADLINE_S = 60.0


@dataclass
class Measurement:
    """What a run of calls took; `server` are Triton's counters over the same time.

    predictions: by index into the texts, for those that were sent. server_cpu_s, client_cpu_s: CPU
    time of the server's processes and of the callers, server_rss_mib, server_pss_mib: memory of the
    server's processes, where they were watched.
    """

    latencies_ms: list[float] = field(default_factory=list)
    texts: int = 0
    seconds: float = 0.0
    server: Statistics | None = None
    predictions: dict[int, Prediction] = field(default_factory=dict)
    server_cpu_s: float | None = None
    client_cpu_s: float | None = None
    server_rss_mib: float | None = None
    server_pss_mib: float | None = None


def run_load(
    url: str,
    texts: Sequence[str],
    concurrency: int,
    seconds: float | None = None,
    *,
    start: int = 0,
) -> Measurement:
    """Send texts over and over for so many seconds, from `start` on, or each text once.

    Raises ClientError naming the text whose request failed.
    """
    return asyncio.run(_run_load(url, texts, concurrency, seconds, start))


async def _run_load(
    url: str, texts: Sequence[str], concurrency: int, seconds: float | None, start: int
) -> Measurement:
    result = Measurement()
    async with AsyncClient(url, deadline_s=DEADLINE_S, retries=0) as client:
        await client.predict(texts[:1])  # connects and learns the classes before the clock starts
        before = await client.statistics()
        start_s = time.perf_counter()
        work = _repeat(texts, start_s + seconds, start) if seconds else iter(enumerate(texts))
        await run_all([_caller(client, work, result) for _ in range(concurrency)])
        result.seconds = time.perf_counter() - start_s
        result.server = await client.statistics() - before
    result.texts = len(result.latencies_ms)
    return result


async def _caller(
    client: AsyncClient, work: Iterator[tuple[int, str]], result: Measurement
) -> None:
    for index, text in work:
        start_s = time.perf_counter()
        try:
            (prediction,) = await client.predict([text])
        except ClientError as error:
            raise ClientError(f"text {index} of the data ({text!r:.80}): {error}") from error
        result.latencies_ms.append(1e3 * (time.perf_counter() - start_s))
        result.predictions[index] = prediction


def _repeat(texts: Sequence[str], end_s: float, start: int) -> Iterator[tuple[int, str]]:
    """Yield texts with their indices until the time is up; what is under way then is finished."""
    for item in islice(cycle(enumerate(texts)), start, None):
        if time.perf_counter() >= end_s:
            return
        yield item


async def run_all(callers: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all callers; the first failure cancels the others."""
    tasks = [asyncio.create_task(caller) for caller in callers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
