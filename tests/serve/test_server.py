"""A tritonserver that does not come up is explained; stand-ins of a few shell lines play it."""

import time

import pytest

from multitask_core.errors import ServeError
from multitask_serve import Ports, TritonServer


@pytest.fixture
def serve(make_model, tmp_path, monkeypatch):
    """Return a server whose tritonserver, on PATH, is a shell script."""

    def make(script, **options):
        repository = make_model()
        configs = repository / "echo" / "configs"
        (configs / "embedded.pbtxt").rename(configs / "cpu.pbtxt")
        binary = tmp_path / "bin" / "tritonserver"
        binary.parent.mkdir()
        binary.write_text(f"#!/bin/sh\n{script}\n")
        binary.chmod(0o755)
        monkeypatch.setenv("PATH", str(binary.parent), prepend=":")
        return TritonServer(repository, "cpu", **options)

    return make


def test_a_server_that_ends_is_quoted(serve, processes):
    server = serve("echo 'error: creating server: Internal - no room'; exit 1")
    with pytest.raises(ServeError, match=r"did not start: no room; its log is /") as raised:
        server.start()
    assert str(server.log_path) in str(raised.value)
    assert processes() == []


def test_a_server_that_is_too_slow_is_ended(serve, processes):
    line = 'I1123 08:05:08.1 53 model_lifecycle.cc:472] "loading: echo:1"'
    server = serve(f"echo '{line}'; exec sleep 1000", ready_timeout_s=0.3)
    with pytest.raises(ServeError, match=r"0\.3 s \(models still loading: echo\).*--ready-timeout"):
        server.start()
    assert processes() == []


def test_a_failing_model_ends_the_wait_at_once(serve):
    line = "E1123 08:05:08.1 5 m.cc:1] \"failed to load 'echo' version 1: Internal: DataError: no\""
    server = serve(f'cat <<"END"\n{line}\nEND\nexec sleep 1000')
    begin_s = time.monotonic()
    with pytest.raises(ServeError, match=r"^model echo: no\n"):
        server.start()
    assert time.monotonic() - begin_s < 10


def test_options_reach_the_server(serve):
    server = serve("printf '%s\n' \"$@\"; exit 1", server_args=["--rate-limit=off"])
    with pytest.raises(ServeError):
        server.start()
    options = server.log_path.read_text().splitlines()
    assert f"--model-repository={server.repository}" in options
    assert "--model-config-name=cpu" in options
    assert f"--grpc-port={server.ports.grpc}" in options
    assert "--rate-limit=off" in options


def test_urls_name_an_address_that_clients_reach(make_model):
    server = TritonServer(make_model(), host="0.0.0.0")
    server.ports = Ports(1, 2, 3)
    assert server.grpc_url == "127.0.0.1:1"
    assert server.http_url == "127.0.0.1:2"
    assert server.metrics_url == "http://127.0.0.1:3/metrics"


def test_old_logs_are_deleted(serve, state):
    logs = state / "logs"
    logs.mkdir(parents=True)
    for number in range(30):
        (logs / f"triton-2020{number:02}.log").touch()
    server = serve("exit 1")
    with pytest.raises(ServeError):
        server.start()
    left = sorted(logs.iterdir())
    assert len(left) == 20
    assert left[-1] == server.log_path


def test_stop_without_start_is_harmless(make_model):
    server = TritonServer(make_model())
    server.kill()
    server.stop()
