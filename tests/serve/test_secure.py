"""What is closed is closed, on a real tritonserver: control, shared memory, TLS, mutual TLS."""

from __future__ import annotations

import http.client
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from multitask_client import Client
from multitask_client.errors import CallError
from multitask_client.settings import Tls as ClientTls
from multitask_export.repository import write_repository
from multitask_serve import TritonServer, cli, records
from multitask_serve.ports import accepts
from multitask_serve.security import GRPC_HEADER, HEADER, Tls
from multitask_serve.trace import Trace

pytestmark = pytest.mark.triton

TOKEN = "a-token-of-this-test"


@pytest.fixture
def repository(tiny_artifact: Path, tmp_path: Path) -> Path:
    write_repository(tiny_artifact, tmp_path / "served")
    return tmp_path / "served"


def refused_calls(client) -> dict[str, Callable[..., object]]:
    return {
        "load": lambda **o: client.load_model("multitask", **o),
        "unload": lambda **o: client.unload_model("multitask", **o),
        "index": lambda **o: client.get_model_repository_index(**o),
        "shared memory": lambda **o: client.register_system_shared_memory("x", "/x", 8, **o),
        "shared memory status": lambda **o: client.get_system_shared_memory_status(**o),
        "trace": lambda **o: client.update_trace_settings("multitask", {"trace_rate": "1"}, **o),
        "logging": lambda **o: client.update_log_settings({"log_verbose_level": 1}, **o),
    }


def post(address: str, path: str, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", path, "{}", headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_control_without_the_token_is_refused(
    repository, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    monkeypatch.setenv("MULTITASK_ADMIN_TOKEN", TOKEN)
    with TritonServer(repository) as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
        for name, call in refused_calls(client).items():
            for headers in (None, {GRPC_HEADER: TOKEN[:-1]}, {HEADER: TOKEN}):
                with pytest.raises(InferenceServerException, match="restricted"):
                    call(headers=headers)
                    raise AssertionError(name)
        for path in (
            "/v2/repository/models/multitask/load",
            "/v2/repository/models/multitask/unload",
            "/v2/repository/index",
            "/v2/systemsharedmemory/region/x/register",
            "/v2/cudasharedmemory/region/x/register",
            "/v2/trace/setting",
            "/v2/logging",
        ):
            assert post(server.http_url, path) == http.client.FORBIDDEN
            assert post(server.http_url, path, {HEADER: "x" * 16}) == http.client.FORBIDDEN
        client.load_model("multitask", headers={GRPC_HEADER: TOKEN})
        loading = "/v2/repository/models/multitask/load"
        assert post(server.http_url, loading, {HEADER: TOKEN}) == http.client.OK
        # What clients need is open.
        assert client.get_model_config("multitask").config.name == "multitask"
        assert client.get_inference_statistics("multitask").model_stats
        client.close()
        with Client(server.grpc_url, deadline_s=60) as one:
            assert one.predict(["play jazz"])
        (record,) = records.read_all(state)
        assert record.token == TOKEN
        (path,) = (state / "servers").iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
    assert records.read_all(state) == []


def test_a_wrong_token_is_told(repository, monkeypatch, capsys) -> None:
    with TritonServer(repository):
        monkeypatch.setenv("MULTITASK_ADMIN_TOKEN", "another-token-of-16")
        assert cli.main(["rollback", "--to=1", "--repository", str(repository)]) == 1
        assert "wants its admin token" in capsys.readouterr().err


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates that it signed for a server and a client; a stranger's too."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ["req", "-newkey", "rsa:2048", "-nodes"]
    for name in ("ca", "stranger-ca"):
        subject = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl(*new_key, "-x509", "-days", "2", *subject)
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "stranger-ca")):
        openssl(*new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signer = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2"]
        names = ["-extfile", "names", "-in", f"{name}.csr", "-out", f"{name}.pem"]
        openssl("x509", "-req", *signer, *names)
    return folder


def answers(url: str, tls: ClientTls | None) -> bool:
    with Client(url, tls=tls, deadline_s=15, retries=0) as client:
        try:
            return bool(client.predict(["play jazz"])[0].label)
        except CallError:
            return False


def test_tls_encrypts_grpc_and_keeps_http_on_this_machine(repository, certificates) -> None:
    tls = Tls(certificates / "server.pem", certificates / "server.key")
    with TritonServer(repository, host="0.0.0.0", tls=tls) as server:
        assert answers(server.grpc_url, ClientTls(certificates / "ca.pem"))
        assert not answers(server.grpc_url, None)
        assert not answers(server.grpc_url, ClientTls(certificates / "stranger-ca.pem"))
        # 127.0.0.2 stands for any other address of this machine.
        assert accepts("127.0.0.2", server.ports.grpc)
        for port in (server.ports.http, server.ports.metrics):
            assert accepts("127.0.0.1", port)
            assert not accepts("127.0.0.2", port)


def test_mutual_tls_refuses_a_client_without_its_certificate(
    repository, certificates, capsys
) -> None:
    ca = certificates / "ca.pem"
    tls = Tls(certificates / "server.pem", certificates / "server.key", ca)
    pairs = {
        name: (certificates / f"{name}.key", certificates / f"{name}.pem")
        for name in ("client", "stranger")
    }
    with TritonServer(repository, tls=tls) as server:
        assert answers(server.grpc_url, ClientTls(ca, *pairs["client"]))
        assert not answers(server.grpc_url, ClientTls(ca))
        assert not answers(server.grpc_url, ClientTls(ca, *pairs["stranger"]))
        key, certificate = pairs["client"]
        options = [f"--tls-ca={ca}", f"--tls-client-cert={certificate}", f"--tls-client-key={key}"]
        assert cli.main(["status", "--json", "--repository", str(repository), *options]) == 0
        status = json.loads(capsys.readouterr().out)
        assert (status["tls"], status["ready"]) == ("mutual", True)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """An OTLP/HTTP collector that only notes what is posted where."""
    posted: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            posted.append(f"{self.path} {len(self.rfile.read(length)) > 0}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", posted
        server.shutdown()


def test_traces_reach_the_collector(repository, collector) -> None:
    url, posted = collector
    with (
        TritonServer(repository, trace=Trace(url, rate=1)) as server,
        Client(server.grpc_url, deadline_s=60) as client,
    ):
        for _ in range(3):
            client.predict(["play jazz"])
    assert "/v1/traces True" in posted  # at the latest when the server ends
