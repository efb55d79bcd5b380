"""The load generators against a fake Triton and a small HTTP server."""

import asyncio
import os
import selectors
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import pytest

from multitask_benchmarks.serving import opened
from multitask_benchmarks.serving.arrivals import Phase, schedule
from multitask_benchmarks.serving.closed import closed_loop, for_seconds, once, run_closed
from multitask_benchmarks.serving.opened import Generators, open_loop
from multitask_benchmarks.serving.web import HttpEndpoint, HttpForm
from multitask_benchmarks.serving.wire import GrpcEndpoint, served_config
from multitask_client.errors import ModelUnavailable, ServerError, ServerUnavailable
from multitask_core.errors import ClientError, InputError

TEXTS = [f"text {'x' * number} in room {number}" for number in range(50)]


def test_each_text_is_answered_as_its_own(server):
    endpoint = GrpcEndpoint(server.url, TEXTS, channels=2)
    calls = run_closed(endpoint, once(50), 8, keep=True)
    assert sorted(calls.index) == list(range(50))
    assert calls.statuses() == {"OK": 50}
    for index, raw in zip(calls.index, calls.replies, strict=True):
        version, found = endpoint.read(raw)
        (wanted,) = server.answer([TEXTS[index]])
        assert version == "1"
        assert (found.label, found.entities, found.score) == (
            wanted.label,
            wanted.entities,
            wanted.score,
        )
    assert calls.stats().calls == 50
    assert calls.client_cpu_s > 0


def test_the_wire_carries_any_text(server):
    texts = ["Zoë in 東京 🎧 7", "x" * 100_000]
    run_closed(GrpcEndpoint(server.url, texts), once(2), 1)
    assert server.requests == [[texts[0]], [texts[1]]]


def test_failures_are_noted_by_reason_and_nothing_is_retried(server):
    server.failures.extend([("UNAVAILABLE", "Exceeds maximum queue size 256")] * 3)
    calls = run_closed(GrpcEndpoint(server.url, TEXTS), once(10), 1)
    assert calls.statuses() == {"OK": 7, "UNAVAILABLE: Exceeds maximum queue size #": 3}
    assert len(server.requests) == 10
    assert (len(calls.answered()), len(calls.refused())) == (7, 3)


def test_a_refused_text_is_a_failure_of_its_own_kind(server):
    def refuse(texts):
        raise InputError("the text is empty")

    server.answer = refuse
    calls = run_closed(GrpcEndpoint(server.url, TEXTS), once(1), 1)
    assert calls.statuses() == {"INVALID_ARGUMENT: the text is empty": 1}


def test_nobody_there(free_url):
    calls = asyncio.run(_send_unconnected(free_url))
    assert calls == "UNAVAILABLE"


async def _send_unconnected(url):
    from multitask_benchmarks.serving.wire import GrpcConnection

    connection = GrpcConnection(GrpcEndpoint(url, TEXTS))
    try:
        await connection.send(0)
    except ServerUnavailable as error:
        return error.status
    finally:
        await connection.close()


@pytest.fixture
def free_url():
    from multitask_serve.ports import Ports, choose_ports

    return f"127.0.0.1:{choose_ports('127.0.0.1', Ports()).grpc}"


def test_an_answer_that_cannot_be_read_is_an_error(server):
    with pytest.raises(ServerError, match="cannot be read"):
        GrpcEndpoint(server.url, TEXTS).read(b"\x01\x02")


def test_config(server):
    assert served_config(server.url)["max_batch_size"] == 64
    with pytest.raises(ModelUnavailable, match="unknown model"):
        served_config(server.url, "another")


def test_picks_go_round_until_the_time_is_up():
    assert list(islice(for_seconds(3, 60), 7)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(for_seconds(3, 0)) == []
    assert list(once(2, start=5)) == [5, 6]


class Scripted:
    """A connection whose answers come when the test says so."""

    def __init__(self):
        self.sent = []
        self.gate = asyncio.Event()

    async def send(self, index):
        self.sent.append((index, time.monotonic()))
        await self.gate.wait()
        return b""

    async def close(self):
        pass


def test_a_closed_loop_never_has_more_under_way_than_callers():
    async def run():
        connection = Scripted()
        loop = asyncio.create_task(closed_loop(connection, once(5), 3))
        while len(connection.sent) < 3:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(connection.sent) == 3
        connection.gate.set()
        calls = await loop
        assert len(calls) == 5

    asyncio.run(run())


def test_an_open_loop_sends_on_time_answered_or_not():
    async def run():
        connection = Scripted()
        start_s = time.monotonic()
        due_s = [start_s + 0.02 * number for number in range(10)]
        loop = asyncio.create_task(open_loop(connection, due_s, list(range(10))))
        while len(connection.sent) < 10:  # none of them has been answered
            await asyncio.sleep(0.001)
        connection.gate.set()
        calls = await loop
        assert [index for index, _ in connection.sent] == list(range(10))
        assert all(at_s >= due for (_, at_s), due in zip(connection.sent, due_s, strict=True))
        assert calls.start_s == due_s
        # The first waited for all the others to be sent, and its latency says so.
        assert calls.latency_ms[0] >= 180
        assert min(calls.late_ms) >= 0

    asyncio.run(run())


def test_a_late_generator_says_so_and_counts_from_the_intended_time():
    async def run():
        connection = Scripted()
        connection.gate.set()
        due_s = [time.monotonic() - 1.0] * 100
        calls = await open_loop(connection, due_s, [0] * 100)
        assert min(calls.late_ms) >= 1000
        assert min(calls.latency_ms) >= 1000

    asyncio.run(run())


def test_generators_in_processes_of_their_own(server):
    phases = [Phase("slow", 40, 0.5), Phase("fast", 160, 0.5)]
    with Generators(2) as generators:
        calls = generators.run(GrpcEndpoint(server.url, TEXTS, channels=2), phases, seed=5)
        again = generators.run(GrpcEndpoint(server.url, TEXTS, channels=2), phases, seed=5)
    drawn = sum(len(schedule(phases, 2 * 5 + number, 0.5)) for number in range(2))
    assert len(calls) == len(again) == drawn
    assert calls.statuses() == {"OK": drawn}
    assert len(set(calls.index)) > 30
    assert calls.client_cpu_s > 0
    assert (
        len(server.requests) == 2 * drawn + 4
    )  # and each generator's first call, before the clock


class Deadly(GrpcEndpoint):
    """Ends the process that would send, as the kernel does where memory is short."""

    async def open(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_generator_is_told(server, monkeypatch):
    monkeypatch.setattr(opened, "_CONNECT_S", 0.0)
    monkeypatch.setattr(opened, "_SLACK_S", 0.2)
    with (
        Generators(1) as generators,
        pytest.raises(ClientError, match="did not come back within"),
    ):
        generators.run(Deadly(server.url, TEXTS, deadline_s=0.0), [Phase("one", 10, 0.1)])


def test_waits_are_not_rounded_up_to_milliseconds():
    """What is asked of the system, not what a busy machine makes of it."""
    reader, writer = socket.socketpair()
    asked = []
    with opened.PreciseSelector() as selector, reader, writer:
        selector.register(reader, selectors.EVENT_READ, "it")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(opened.select, "select", lambda *given: asked.append(given))
            assert selector.select(0.0003) == []
        assert asked == [([selector.fileno()], [], [], 0.0003)]
        writer.send(b"x")
        ((key, events),) = selector.select(60)
        assert (key.data, events) == ("it", selectors.EVENT_READ)


class Peer(BaseHTTPRequestHandler):
    """Answers as the peers' servers do; a text "boom" fails."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, body, self.client_address))
        status, answer = 200, ANSWER
        if b"boom" in body:
            status, answer = 500, b"it broke"
        if b"bye" in body:  # as uvicorn does with what was idle
            self.close_connection = True
        if b"mute" in body:
            self.close_connection = True
            return
        if b"odd" in body:
            answer = b'{"label": 1}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


ANSWER = (
    b'{"label": "book", "score": 0.5, "entities": '
    b'[{"type": "city", "text": "Lyon", "start": 3, "end": 7, "score": 0.25}]}'
)


@pytest.fixture
def peer():
    with ThreadingHTTPServer(("127.0.0.1", 0), Peer) as running:
        running.daemon_threads, running.seen = True, []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_peer_is_asked_over_few_connections_that_stay_open(peer):
    url = f"127.0.0.1:{peer.server_port}"
    endpoint = HttpEndpoint(url, ["in Lyon", "Zoë"])
    calls = run_closed(endpoint, (number % 2 for number in range(20)), 4, keep=True)
    assert calls.statuses() == {"OK": 20}
    reply = endpoint.read(calls.replies[0])
    assert (reply.prediction.label, reply.prediction.score) == ("book", 0.5)
    assert reply.prediction.entities[0].text == "Lyon"
    assert {body for _, body, _ in peer.seen} == {b'{"text": "in Lyon"}', b'{"text": "Zo\\u00eb"}'}
    assert {path for path, _, _ in peer.seen} == {"/predict"}
    assert len({address for _, _, address in peer.seen}) <= 4


def test_a_peer_may_have_its_own_path_and_take_lists(peer):
    form = HttpForm("/predictions/multitask", "texts", listed=True)
    endpoint = HttpEndpoint(f"127.0.0.1:{peer.server_port}", ["in Lyon"], form)
    run_closed(endpoint, once(1), 1)
    assert peer.seen[0][:2] == ("/predictions/multitask", b'{"texts": ["in Lyon"]}')
    assert endpoint.read(b"[" + ANSWER + b"]").prediction.label == "book"
    for other in (ANSWER, b"[]", b"[" + ANSWER + b"," + ANSWER + b"]"):
        with pytest.raises(ServerError, match="no answer in"):
            endpoint.read(other)


def test_a_connection_that_the_server_closed_costs_no_request(peer):
    """Once before the next request, once as it is sent: what came with it was never read."""

    async def run():
        connection = await HttpEndpoint(f"127.0.0.1:{peer.server_port}", ["bye", "a"]).open()
        await connection.send(0)
        (stream,) = connection._idle
        while not stream[0].at_eof():
            await asyncio.sleep(0.001)
        assert await connection.send(1) == ANSWER
        assert connection._idle[0] is not stream
        await connection.send(0)
        connection._idle[0][0].at_eof = lambda: False  # not seen in time
        assert await connection.send(1) == ANSWER
        assert len(connection._idle) == 1
        await connection.close()

    asyncio.run(run())
    assert [body for _, body, _ in peer.seen] == [b'{"text": "bye"}', b'{"text": "a"}'] * 2


def test_a_server_that_closes_a_new_connection_has_failed(peer):
    endpoint = HttpEndpoint(f"127.0.0.1:{peer.server_port}", ["a", "mute"])
    calls = run_closed(endpoint, once(2), 1)
    assert calls.status[0] == "OK"
    assert calls.status[1].startswith("UNAVAILABLE")
    assert len(peer.seen) == 3  # once more on a new connection, and no more


def test_a_peers_failures(peer, free_url):
    url = f"127.0.0.1:{peer.server_port}"
    endpoint = HttpEndpoint(url, ["boom", "odd", "good"])
    calls = run_closed(endpoint, once(3), 1, keep=True)
    assert calls.statuses() == {"OK": 2, "HTTP 500: it broke": 1}
    with pytest.raises(ServerError, match="no answer in"):
        endpoint.read(calls.replies[1])
    gone = run_closed(HttpEndpoint(free_url, ["a"]), once(1), 1)
    assert next(iter(gone.statuses())).startswith("UNAVAILABLE")
