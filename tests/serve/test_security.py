"""The options by which a server is closed, and the imports that a server must not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from multitask_core.errors import ConfigError
from multitask_serve import Ports, TritonServer
from multitask_serve.security import Tls, admin_token, restrictions
from multitask_serve.trace import Trace


@pytest.fixture
def pem(tmp_path):
    for name in ("cert", "key", "ca"):
        (tmp_path / f"{name}.pem").write_text(name)
    return {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "ca")}


def options(make_model, **settings):
    server = TritonServer(make_model(), **settings)
    server.ports = Ports(1, 2, 3)
    return server._options()


def test_a_server_is_closed_without_being_asked_to(make_model):
    given = options(make_model)
    assert "--model-control-mode=explicit" in given
    assert "--disable-auto-complete-config" in given
    for flag in ("--grpc-restricted-protocol=", "--http-restricted-api="):
        (option,) = [one for one in given if one.startswith(flag)]
        apis, _, header = option.removeprefix(flag).partition(":")
        assert apis.split(",") == ["model-repository", "shared-memory", "trace", "logging"]
        name, _, token = header.partition("=")
        assert name == "multitask-admin"
        assert len(token) >= 40
    for name in ("http", "grpc", "metrics"):
        assert f"--{name}-address=127.0.0.1" in given


def test_every_server_has_its_own_token(make_model):
    repository = make_model()
    assert TritonServer(repository).token != TritonServer(repository).token


def test_a_given_token_is_taken(monkeypatch):
    monkeypatch.setenv("MULTITASK_ADMIN_TOKEN", "0123456789abcdef")
    assert admin_token() == "0123456789abcdef"
    assert restrictions(admin_token())[0].endswith(":multitask-admin=0123456789abcdef")


@pytest.mark.parametrize("token", ["", "short", "with spaces in it all", "a" * 16 + ",b=c"])
def test_a_weak_token_is_refused(monkeypatch, token):
    monkeypatch.setenv("MULTITASK_ADMIN_TOKEN", token)
    with pytest.raises(ConfigError, match="at least 16 letters"):
        admin_token()


def test_tls_options(make_model, pem):
    given = options(make_model, tls=Tls(pem["cert"], pem["key"]), host="0.0.0.0")
    assert "--grpc-use-ssl=true" in given
    assert f"--grpc-server-cert={pem['cert']}" in given
    assert f"--grpc-server-key={pem['key']}" in given
    assert not any("mutual" in one for one in given)
    assert "--grpc-address=0.0.0.0" in given
    assert {"--http-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= {*given}


def test_mutual_tls_options(make_model, pem):
    given = options(make_model, tls=Tls(pem["cert"], pem["key"], pem["ca"]))
    assert "--grpc-use-ssl-mutual=true" in given
    assert f"--grpc-root-cert={pem['ca']}" in given


def test_half_of_tls_is_refused(pem, tmp_path):
    assert Tls.from_flags(None, None, None) is None
    for flags in ((pem["cert"], None, None), (None, pem["key"], None), (None, None, pem["ca"])):
        with pytest.raises(ConfigError, match="both --tls-cert and --tls-key"):
            Tls.from_flags(*flags)
    with pytest.raises(ConfigError, match="cannot read the PEM file"):
        Tls.from_flags(pem["cert"], tmp_path / "none.pem", None)


def test_trace_options(make_model):
    given = options(make_model, trace=Trace("http://localhost:4318/v1/traces", 10))
    assert [one for one in given if one.startswith("--trace")] == [
        "--trace-config=mode=opentelemetry",
        "--trace-config=opentelemetry,url=http://localhost:4318/v1/traces",
        "--trace-config=rate=10",
        "--trace-config=level=TIMESTAMPS",
    ]
    assert not any("trace-config" in one for one in options(lambda: given and make_model("other")))


@pytest.mark.parametrize(
    ("url", "rate", "message"),
    [("localhost:4318", 1, "--trace-url"), ("http://localhost:4318", 0, "--trace-rate 0")],
)
def test_traces_that_cannot_be_sent(url, rate, message):
    with pytest.raises(ConfigError, match=message):
        Trace(url, rate)


def without(*modules: str, run: str) -> subprocess.CompletedProcess[str]:
    """Run code where some packages are not installed."""
    program = f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n{run}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )


def test_a_container_starts_without_the_clients_libraries():
    start = "from multitask_serve import cli\ncli.main(['start', '--help'])"
    answer = without("tritonclient", "grpc", "google.protobuf", "onnx", "torch", run=start)
    assert answer.returncode == 0, answer.stderr
    assert "usage: python -m multitask_serve start" in answer.stdout


def test_publishing_needs_no_training_libraries():
    libraries = ("torch", "transformers", "onnx", "onnxruntime", "optimum", "datasets")
    code = "import multitask_serve.publish, multitask_serve.status, multitask_serve.commands"
    answer = without(*libraries, run=code)
    assert answer.returncode == 0, answer.stderr
