"""Publishing and rolling back on a real tritonserver, under load: `make test-triton`."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from multitask_client.errors import CallError
from multitask_client.protocol import Infer
from multitask_client.settings import Settings
from multitask_client.transport import SyncTransport
from multitask_core.signature import TEXT_MODEL
from multitask_export import repository as writer
from multitask_export.repository import write_repository
from multitask_serve import TritonServer, cli
from multitask_serve.admin import Address, Admin
from multitask_serve.repository import NEXT
from multitask_serve.store import Store
from tiny import SENTENCES

pytestmark = pytest.mark.triton

RENAMED = {"alarm": "uno", "music": "due", "weather": "tre"}
ANY_SPEED = "--max-latency-ratio=1000"
BOTH = pytest.mark.parametrize("encoder", ["in-process", "bls"], indirect=True)
Answer = tuple[str, str, bytes]  # version, label, entities


@pytest.fixture
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the text model's encoder runs; `bls` is how it runs on the container's targets."""
    where: str = getattr(request, "param", "in-process")
    if where == "bls":
        original = writer.text_config

        def over_bls(*arguments, **options) -> pb.ModelConfig:
            config = original(*arguments, **options)
            config.parameters["encoder"].string_value = "bls"
            del config.model_warmup[:]
            return config

        monkeypatch.setattr(writer, "text_config", over_bls)
    return where


@pytest.fixture
def repository(encoder: str, tiny_artifact: Path, tmp_path: Path) -> Path:
    write_repository(tiny_artifact, tmp_path / "served")
    return tmp_path / "served"


@pytest.fixture
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as running:
        yield running


@pytest.fixture
def renamed(make_artifact: Callable[..., Path]) -> Path:
    """The same model under other class names: its answers tell which version gave them."""
    return make_artifact(classes=tuple(RENAMED.values()))


def ask(transport: SyncTransport, text: str) -> Answer:
    reply = transport.infer(Infer((text,), (0,)), 60)
    label, entities = (reply.outputs[name] for name in ("LABEL", "ENTITIES"))
    assert label is not None
    assert entities is not None
    return reply.version, label.item().decode(), entities.item()


@contextmanager
def load(server: TritonServer, threads: int = 6) -> Iterator[list[tuple[str, Answer | CallError]]]:
    """Ask without a pause until the block ends; no retry hides a failure."""
    answers: list[tuple[str, Answer | CallError]] = []
    stop = threading.Event()

    def run(offset: int) -> None:
        transport = SyncTransport(Settings(server.grpc_url, retries=0))
        turn = offset
        while not stop.is_set():
            text = SENTENCES[turn % len(SENTENCES)]
            turn += 1
            try:
                answers.append((text, ask(transport, text)))
            except CallError as error:
                answers.append((text, error))
        transport.close()

    workers = [threading.Thread(target=run, args=(one,)) for one in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield answers
    finally:
        stop.set()
        for worker in workers:
            worker.join()


@contextmanager
def readiness(server: TritonServer) -> Iterator[Counter[int]]:
    """What a load balancer sees meanwhile: the status codes of both its probes."""
    seen: Counter[int] = Counter()
    stop = threading.Event()

    def run() -> None:
        for path in cycle(("/v2/models/multitask/ready", "/v2/health/ready")):
            if stop.wait(0.02):
                return
            connection = http.client.HTTPConnection(server.http_url, timeout=30)
            connection.request("GET", path)
            seen[connection.getresponse().status] += 1
            connection.close()

    watcher = threading.Thread(target=run)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def command(name: str, repository: Path, *arguments: object) -> int:
    return cli.main([name, "--repository", str(repository), *map(str, arguments)])


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def ready(server: TritonServer) -> dict[tuple[str, int], str]:
    with Admin(Address(server.grpc_url, server.token)) as admin:
        return {key: state for key, state in admin.states().items() if state == "READY"}


def only(version: int) -> dict[tuple[str, int], str]:
    return {("multitask", version): "READY", ("multitask_onnx", version): "READY"}


@BOTH
def test_no_request_fails_while_versions_change(
    server, encoder, repository, renamed, capsys
) -> None:
    with Admin(Address(server.grpc_url, server.token)) as admin:
        assert admin.calls_tensor_model() == (encoder == "bls")
    transport = SyncTransport(Settings(server.grpc_url))
    expected = {text: ask(transport, text)[1:] for text in SENTENCES}
    with load(server) as answers, readiness(server) as seen:
        assert command("publish", repository, renamed, "--force=names", ANY_SPEED) == 0
        assert last_json(capsys)["live"] == 2
        assert command("rollback", repository) == 0
        assert command("rollback", repository) == 0
        assert command("publish", repository, renamed, ANY_SPEED) == 0
        assert command("rollback", repository, "--to", 1) == 0
    assert set(seen) == {200}
    assert [answer for _, answer in answers if isinstance(answer, CallError)] == []
    versions = Counter()
    for text, answer in answers:
        assert not isinstance(answer, CallError)
        version, label, entities = answer
        versions[version] += 1
        known, spans = expected[text]
        assert entities == spans
        assert label == (known if version == "1" else RENAMED[known])
    assert set(versions) == {"1", "2", "3"}
    assert ask(transport, "a")[0] == "1"
    transport.close()
    assert ready(server) == only(1)


@BOTH
def test_a_version_that_answers_differently_is_refused(server, repository, renamed, capsys) -> None:
    before = sorted(repository.rglob("*"))
    assert command("publish", repository, renamed, ANY_SPEED) == 1
    captured = capsys.readouterr()
    assert "refused: labels changed in 100.0% of 7 sentences, 2.0% allowed" in captured.err
    outcome = json.loads(captured.out.strip().splitlines()[-1])
    assert (outcome["done"], outcome["live"]) == (False, 1)
    assert outcome["comparison"]["entity_changes"] == 0
    assert sorted(repository.rglob("*")) == before
    assert ready(server) == only(1)


@BOTH
def test_a_publisher_that_is_killed_is_cleaned_up_after(
    server, repository, renamed, wait_until, capsys
) -> None:
    arguments = [sys.executable, "-m", "multitask_serve", "publish", str(renamed), ANY_SPEED]
    with subprocess.Popen(
        [*arguments, "--repository", str(repository)], stdout=subprocess.DEVNULL
    ) as process:
        wait_until((repository / NEXT).exists, 60)
        process.kill()
    assert Store(repository).live() == 1
    assert command("publish", repository, renamed, "--force=names", ANY_SPEED) == 0
    assert "undoing an interrupted change to version 2" in capsys.readouterr().out
    assert not (repository / NEXT).exists()
    assert ready(server) == only(2)


@BOTH
def test_a_version_that_does_not_load_leaves_the_live_one(
    server, repository, renamed, capsys, tmp_path, monkeypatch
) -> None:
    """Its code is broken: as the compared model, and as one that was good when it was published."""
    broken = tmp_path / "model.py"
    broken.write_text("raise ValueError('no good')\n")
    with load(server) as answers:
        with monkeypatch.context() as patch:
            patch.setattr(writer, "server_model", lambda _: broken)
            assert command("publish", repository, renamed, ANY_SPEED) == 1
        assert "no good" in capsys.readouterr().err
        assert Store(repository).versions() == [1]
        assert command("publish", repository, renamed, "--force=names", ANY_SPEED) == 0
        assert command("rollback", repository) == 0
        for model in ("multitask", "multitask_onnx"):
            (repository / model / "2" / "model.py").write_bytes(broken.read_bytes())
        capsys.readouterr()
        assert command("rollback", repository, "--to=2") == 1
        captured = capsys.readouterr()
        assert "no good" in captured.err
        assert "undone: back to version 1" in captured.out
    assert [answer for _, answer in answers if isinstance(answer, CallError)] == []
    assert {answer[0] for _, answer in answers if not isinstance(answer, CallError)} == {"1", "2"}
    assert Store(repository).live() == 1
    assert ready(server) == only(1)


def test_what_was_published_is_what_a_restart_serves(repository, renamed, capsys) -> None:
    with TritonServer(repository):
        assert command("publish", repository, renamed, "--force=names", ANY_SPEED) == 0
    with TritonServer(repository) as again:
        assert ready(again) == only(2)
        capsys.readouterr()
        assert command("status", repository, "--json") == 0
        status = last_json(capsys)
    assert (status["ready"], status["target"], status["grpc"]) == (True, "embedded", again.grpc_url)
    assert {(one["model"], one["version"]) for one in status["models"]} == set(only(2))
    assert command("versions", repository, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["version"], row["live"]) for row in rows] == [(1, False), (2, True)]
    assert rows[1]["forced"] == "names"
    assert rows[1]["parent"] == "checkpoint of other"


def test_status_counts_requests(server, repository, capsys, wait_until) -> None:
    transport = SyncTransport(Settings(server.grpc_url))

    def text_model() -> dict:
        capsys.readouterr()
        assert command("status", repository, "--json") == 0
        models = last_json(capsys)["models"]
        return next(one for one in models if one["model"] == TEXT_MODEL)

    before = text_model()["requests"]
    for text in SENTENCES:
        ask(transport, text)
    transport.close()
    # Triton counts a request after it was answered.
    wait_until(lambda: text_model()["requests"] == before + len(SENTENCES), 20)
    assert command("status", repository) == 0
    page = capsys.readouterr().out
    assert page.startswith("live, ready, Triton ")
    assert f"gRPC     {server.grpc_url}" in page


def test_without_a_server_nothing_is_compared(repository, renamed, capsys) -> None:
    assert command("publish", repository, renamed) == 0
    out = capsys.readouterr().out
    assert "the version will not be compared" in out
    assert "live: version 2, from the next start on" in out
    assert command("status", repository) == 1
    assert "no running server of this user was found" in capsys.readouterr().err
    with TritonServer(repository) as server:
        assert ready(server) == only(2)


@pytest.mark.parametrize("encoder", ["bls"], indirect=True)
def test_a_server_elsewhere_is_reached_by_address_and_token(
    server, repository, renamed, capsys, monkeypatch, tmp_path
) -> None:
    """As from another container: no record says what the server serves."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-cache"))
    arguments = [renamed, "--force=names", ANY_SPEED, f"--url={server.grpc_url}"]
    assert command("publish", repository, *arguments) == 1
    assert "set $MULTITASK_ADMIN_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("MULTITASK_ADMIN_TOKEN", server.token)
    assert command("publish", repository, *arguments) == 0
    outcome = last_json(capsys)
    assert (outcome["live"], outcome["server"]) == (2, server.grpc_url)
    assert command("status", repository, "--json", f"--url={server.grpc_url}") == 0
    status = last_json(capsys)
    assert (status["ready"], status["uptime_s"]) == (True, None)


def test_an_address_where_nobody_answers(repository, renamed, capsys) -> None:
    assert command("publish", repository, renamed, "--url=127.0.0.1:9") == 1
    assert "127.0.0.1:9: cannot list models" in capsys.readouterr().err
    assert Store(repository).versions() == [1]
