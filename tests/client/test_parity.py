"""The blocking and the asyncio client give the same results, errors and requests."""

import asyncio
import inspect
import time
from contextlib import closing
from functools import partial
from operator import methodcaller

import pytest

from multitask_client import AsyncClient, Client, ClientError
from multitask_client.testing import FakeServer
from multitask_core.errors import ConfigError

EXPECTED = (ClientError, ConfigError, TypeError, RuntimeError)
MANY = [f"text number {number}" for number in range(45)]


def scenario_few(server, client):
    return [client.predict(["one 1", "a rather long text 22"])]


def scenario_many(server, client):
    return [client.predict(MANY)]


def scenario_options(server, client):
    return [
        client.predict(MANY, only="label"),
        client.predict(MANY, only="entities", min_entity_score=0.9),
        client.predict_each(["1 a", " "], only="entities"),
        client.predict(MANY, only="neither"),
    ]


def scenario_none(server, client):
    return [client.predict([])]


def scenario_refused_text(server, client):
    return [client.predict([*MANY, " ", "a"]), client.predict([" "])]


def scenario_unsendable(server, client):
    return [client.predict(["a", "\ud800"]), client.predict([None]), client.predict("bare")]


def scenario_each(server, client):
    return [client.predict_each(["a", " ", *MANY, "\ud800"])]


def scenario_server_fails(server, client):
    server.failures.append(("INTERNAL", "boom"))
    return [client.predict(["one"]), client.predict(["one"])]


def scenario_retried(server, client):
    server.failures.append(("UNAVAILABLE", "busy"))
    return [client.predict(["one"])]


def scenario_smaller_batches(server, client):
    yield client.predict(MANY)
    server.max_batch_size = 3
    yield client.predict(MANY)


def scenario_late(server, client):
    server.delay_s = 6
    return [client.predict(["one"])]


def scenario_readiness(server, client):
    yield client.is_ready()
    yield client.statistics()
    yield client.server_version()
    server.ready = False
    yield client.is_ready()
    yield client.wait_until_ready(0.3)


def scenario_gone(server, client):
    server.close()
    return [client.predict(["one"]), client.is_ready()]


def scenario_closed(server, client):
    return [client.close(), client.predict(["one"]), client.is_ready(), client.statistics()]


SCENARIOS = [value for name, value in sorted(globals().items()) if name.startswith("scenario_")]


class _Recorder:
    """Stands for a client in a scenario: each call becomes the call that either twin will make."""

    def __getattr__(self, name):
        return partial(methodcaller, name)


def sync_outcomes(server, scenario):
    def outcome(client, call):
        try:
            return call(client)
        except EXPECTED as error:
            return error

    with Client(server.url, deadline_s=1.5) as client:
        return [outcome(client, call) for call in scenario(server, _Recorder())]


def async_outcomes(server, scenario):
    async def outcome(client, call):
        try:
            return await call(client)
        except EXPECTED as error:
            return error

    async def run():
        async with AsyncClient(server.url, deadline_s=1.5) as client:
            return [await outcome(client, call) for call in scenario(server, _Recorder())]

    return asyncio.run(run())


def _comparable(value, url):
    if isinstance(value, list):
        return [_comparable(one, url) for one in value]
    if not isinstance(value, Exception):
        return value
    attributes = {key: str(one).replace(url, "URL") for key, one in vars(value).items()}
    return type(value), str(value).replace(url, "URL"), attributes


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__[9:])
def test_twins_agree(scenario, expected):
    seen = []
    for outcomes in (sync_outcomes, async_outcomes):
        with FakeServer(expected, classes=("short", "long")) as server:
            results = _comparable(outcomes(server, scenario), server.url)
            # Of requests cancelled because another was refused, any number may have arrived.
            answered = sorted(
                sent for sent in server.requests if len(sent) <= server.max_batch_size
            )
            seen.append((results, answered, sorted(server.config_requests)))
    assert seen[0] == seen[1]


def test_signatures_agree():
    for name in ("__init__", "predict", "predict_each", "wait_until_ready", "is_ready", "close"):
        twins = [inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient)]
        assert twins[0] == twins[1]


def test_async_calls_run_concurrently(server):
    server.delay_s = 0.2

    async def run():
        async with AsyncClient(server.url, in_flight=4) as client:
            await client.predict(["warm"])
            start = time.monotonic()
            await asyncio.gather(client.predict(["a"] * 32), client.predict(["b"] * 32))
            return time.monotonic() - start

    assert asyncio.run(run()) < 1.2  # one by one it would be 1.6


def test_async_cancellation_leaves_nothing_behind(server):
    server.delay_s = 1.0

    async def run():
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.predict(["a"] * 20))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1


def test_an_async_client_belongs_to_one_loop(server):
    client = AsyncClient(server.url)  # made outside any loop

    async def predict():
        return await client.predict(["one"])

    with closing(asyncio.new_event_loop()) as loop:
        assert loop.run_until_complete(predict())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(predict())
        loop.run_until_complete(client.close())
