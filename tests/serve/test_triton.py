"""The whole of it on a real tritonserver: `make test-triton`."""

import http.client
import json
import shutil
import signal
import subprocess
import sys

import pytest

from multitask_core.errors import ServeError
from multitask_serve import TritonServer
from multitask_serve.ports import accepts

pytestmark = pytest.mark.triton

FREE_PORTS = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
REQUEST = {"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["Zoë"]}]}


@pytest.fixture
def start(processes, wait_until):
    """Run `start` as a program; nothing may be left of it when the test ends."""
    started = []

    def run(repository, *options):
        command = [sys.executable, "-m", "multitask_serve", "start", *FREE_PORTS, *options]
        process = subprocess.Popen(
            [*command, "--repository", str(repository)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
    wait_until(lambda: not processes(), 20)


def facts(process):
    """Read stdout up to the JSON line."""
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise AssertionError(f"ended without a JSON line: {process.stderr.read()}")


def infer(address, model="echo"):
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(REQUEST))
        answer = json.loads(connection.getresponse().read())
        return answer["outputs"][0]["data"]
    finally:
        connection.close()


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_serve_and_stop_on_a_signal(make_model, start, processes, number):
    repository = make_model()
    before = files(repository)
    process = start(repository)
    found = facts(process)
    assert found["pid"] == process.pid
    assert found["models"] == ["echo"]
    assert accepts(*found["grpc"].split(":"))
    assert infer(found["http"]) == ["Zoë"]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert processes() == []
    assert files(repository) == before


def test_requests_in_flight_are_answered_before_the_end(make_model, start):
    repository = make_model(execute="import time; time.sleep(2)")
    process = start(repository)
    found = facts(process)
    program = (
        "import http.client, json, sys\n"
        f"connection = http.client.HTTPConnection({found['http']!r}, timeout=30)\n"
        f"connection.request('POST', '/v2/models/echo/infer', {json.dumps(REQUEST)!r})\n"
        "print('sent', flush=True)\n"
        "print(connection.getresponse().status)\n"
    )
    client = [sys.executable, "-c", program]
    with subprocess.Popen(client, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout.readline() == "sent\n"
        # In flight once the server has read it.
        with pytest.raises(subprocess.TimeoutExpired):
            asking.wait(0.5)
        process.terminate()
        assert asking.stdout.read() == "200\n"
    assert process.wait(60) == 0


def test_a_second_signal_kills(make_model, start):
    process = start(make_model(execute="import time; time.sleep(60)"))
    found = facts(process)
    program = f"import http.client; c = http.client.HTTPConnection({found['http']!r}); "
    program += f"c.request('POST', '/v2/models/echo/infer', {json.dumps(REQUEST)!r}); "
    program += "print('sent', flush=True); c.getresponse()"
    client = [sys.executable, "-c", program]
    with subprocess.Popen(
        client, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as asking:
        assert asking.stdout.readline() == "sent\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.terminate()
        assert process.wait(5) == 0
        asking.wait(10)


def test_a_launcher_that_is_killed_leaves_nothing(make_model, start, processes, wait_until):
    process = start(make_model())
    facts(process)
    assert len(processes()) >= 3  # launcher, guard, server, stub
    process.kill()
    wait_until(lambda: not processes(), 20)


def test_a_launcher_that_is_killed_while_a_model_hangs_leaves_nothing(
    make_model, start, processes, wait_until
):
    # Native code that holds the interpreter lock: the stub itself cannot notice that it is alone.
    hang = "import ctypes; ctypes.PyDLL(None).sleep(1000)"
    process = start(make_model(initialize=hang))
    wait_until(lambda: any("_stub" in command for command in processes()), 20)
    process.kill()
    wait_until(lambda: not processes(), 20)


def test_a_model_that_fails_is_quoted(make_model, start):
    make_model("good")
    reason = "manifest: sha256 of model.onnx is ab, not cd: run `make export`"
    make_model("broken", initialize=f"raise ValueError({reason!r})")
    process = start(make_model("second", initialize="import missing_package"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    *failures, where = err.splitlines()
    assert sorted(failures) == [
        f"model broken: ValueError: {reason}",
        "model second: ModuleNotFoundError: No module named 'missing_package'",
    ]
    assert where.startswith("the server's log is /")


def test_a_taken_port_is_found_before_the_start(make_model, start):
    repository = make_model()
    first = facts(start(repository))
    port = first["http"].split(":")[1]
    process = start(repository, f"--http-port={port}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(f"port {port} on 127.0.0.1 is taken")


def test_warnings_of_the_running_server_are_forwarded(make_model, start):
    warn = "pb_utils.Logger.log_warn('text was windowed')"
    process = start(make_model(execute=warn))
    infer(facts(process)["http"])
    assert "text was windowed" in process.stderr.readline()


def test_run_tells_the_command_where_the_server_is(make_model, tmp_path, processes):
    program = (
        "import os, sys, urllib.request\n"
        "grpc, http, metrics = sys.argv[1:]\n"
        "assert os.environ['MULTITASK_GRPC_URL'] == grpc\n"
        "assert os.environ['MULTITASK_HTTP_URL'] == http\n"
        "page = os.environ['MULTITASK_METRICS_URL']\n"
        "assert page == f'http://{metrics}/metrics'\n"
        "assert b'nv_inference_count' in urllib.request.urlopen(page).read()\n"
        "print(sys.stdin.read())\n"
        "sys.exit(7)\n"
    )
    launcher = [sys.executable, "-m", "multitask_serve", "run", "--repository", make_model()]
    answer = subprocess.run(
        [*launcher, "--", sys.executable, "-c", program, "{grpc}", "{http}", "{metrics}"],
        capture_output=True,
        text=True,
        input="stdin",
        timeout=120,
        check=False,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (7, "stdin\n", "")
    assert processes() == []


def test_run_passes_a_signal_on_to_the_command(make_model, tmp_path, processes, wait_until):
    script = f"touch {tmp_path}/ready; exec sleep 1000"
    launcher = [sys.executable, "-m", "multitask_serve", "run", "--repository", make_model()]
    with subprocess.Popen([*launcher, "--", "sh", "-c", script]) as process:
        wait_until((tmp_path / "ready").exists, 30)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert processes() == []


def test_the_context_manager(make_model, processes):
    with TritonServer(make_model()) as server:
        assert infer(server.http_url) == ["Zoë"]
        assert server.poll() == []
        assert server.log_path.is_file()
    assert processes() == []


def test_a_server_that_dies_is_reported(make_model, processes, wait_until):
    with TritonServer(make_model()) as server:
        server.kill()
        wait_until(lambda: not processes(), 20)
        with pytest.raises(ServeError, match=r"ended with status 137.*its log is"):
            server.poll()


def test_a_version_published_into_the_live_repository_can_be_loaded(make_model):
    repository = make_model()
    with TritonServer(repository) as server:
        shutil.copytree(repository / "echo" / "1", repository / "echo" / "2")
        connection = http.client.HTTPConnection(server.http_url, timeout=30)
        token = {"multitask-admin": server.token}
        connection.request("POST", "/v2/repository/models/echo/load", "{}", token)
        assert connection.getresponse().read() == b""
        connection.request("GET", "/v2/models/echo/versions/2/ready")
        assert connection.getresponse().status == http.client.OK
        connection.close()
    assert not list(repository.rglob("__pycache__"))
