"""The serving command's options, and what is read from a config."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from multitask_benchmarks import peers as environments
from multitask_benchmarks.__main__ import main
from multitask_benchmarks.results import read_results
from multitask_benchmarks.serving import peers, perf_analyzer
from multitask_benchmarks.serving.peers import (
    FOLDER,
    NICENESS,
    Interface,
    Peer,
    known_peers,
    parse_peer,
    serve_peer,
    why_not,
)
from multitask_benchmarks.serving.served import facts, identity, live_version, parse_repository
from multitask_benchmarks.serving.web import HttpForm
from multitask_core import manifest
from multitask_core.errors import ConfigError, ServeError


@pytest.mark.parametrize(
    "scenario",
    [
        "throughput",
        "rates",
        "max-rate",
        "start",
        "cross-check",
        "profile",
        "mixed",
        "rollover",
        "overload",
        "soak",
    ],
)
def test_help_teaches(scenario, capsys):
    with pytest.raises(SystemExit) as end:
        main(["serving", scenario, "--help"])
    assert end.value.code == 0
    assert f"serving {scenario}" in capsys.readouterr().out


def test_all_scenarios_are_listed(capsys):
    with pytest.raises(SystemExit):
        main(["serving", "--help"])
    assert "at which 99 % are answered in time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scenario", "options", "message"),
    [
        ("mixed", ["--share", "1.5"], "--share 1.5: it must be between 0 and 1"),
        ("mixed", ["--rounds", "0"], "--rounds 0: it must be above 0"),
        ("rates", ["--rates", "10", "0"], "--rates [10.0, 0.0]: it must be above 0"),
        ("max-rate", ["--p99-ms", "0"], "--p99-ms [0.0]: it must be above 0"),
        ("start", ["--warm-calls", "0"], "--warm-calls 0: it must be above 0"),
        ("cross-check", ["--sizes", "0"], "--sizes [0]: it must be above 0"),
        ("overload", ["--half-seconds", "-1"], "--half-seconds -1.0"),
        ("soak", ["--minutes", "0"], "--minutes 0.0"),
        ("soak", [], "there is no model 'multitask' in nowhere"),
    ],
)
def test_wrong_options_are_told(scenario, options, message, capsys):
    arguments = ["--repository", "nowhere", "--data", "nothing.jsonl", *options]
    assert main(["serving", scenario, *arguments]) == 1
    assert message in capsys.readouterr().err


def test_without_perf_analyzer_the_result_says_so(
    tiny_repository, corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(perf_analyzer.shutil, "which", lambda name: None)
    arguments = ["--repository", str(tiny_repository), "--data", str(corpus), "--name", "tiny"]
    assert main(["serving", "cross-check", *arguments, "--output", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").iterdir()
    record = read_results(path).scenarios["cross-check"]
    assert record.details["not_run"] == {"perf_analyzer": "no perf_analyzer on PATH"}
    assert "no perf_analyzer on PATH" in capsys.readouterr().out


def test_two_servers_of_one_name_are_refused(tiny_repository, capsys):
    arguments = ["--repository", str(tiny_repository)] * 2
    assert main(["serving", "throughput", *arguments, "--checkpoint", "c", "--data", "d"]) == 1
    assert "different names" in capsys.readouterr().err


def test_repositories_are_named(tiny_repository):
    assert parse_repository(str(tiny_repository)) == ("Triton", tiny_repository)
    assert parse_repository(f"int8={tiny_repository}") == ("int8", tiny_repository)


def test_peers_are_named(tmp_path):
    for wrong in ("mlserver=/bin/sh", "litserve:bf16:2", "litserve:bf16:0x1", "litserve:"):
        with pytest.raises(ConfigError, match="bentoml, fastapi, litserve, rayserve, torchserve"):
            parse_peer(wrong)
    with pytest.raises(ConfigError, match=r"no interpreter .*requirements\.txt"):
        parse_peer(f"litserve:bf16={tmp_path / 'python'}")
    peer = parse_peer("litserve:bf16=/bin/sh")
    assert (peer.title, str(peer.python)) == ("litserve bf16", "/bin/sh")
    assert peer.options == ["--precision", "bf16"]
    wide = parse_peer("torchserve:fp32:2x1=/bin/sh")
    assert wide.title == "torchserve fp32 2x1"
    assert wide.options[2:] == ["--workers", "2", "--threads", "1"]
    assert parse_peer("bentoml").python == peers.environment("bentoml")


def test_every_peer_says_how_it_is_asked():
    found = {name: Interface.read(FOLDER / name) for name in known_peers()}
    assert found["litserve"].form == found["fastapi"].form == HttpForm("/predict", "text", False)
    assert found["torchserve"].form.path == "/predictions/multitask"
    assert found["torchserve"].needs == ("java",)
    assert found["bentoml"].form == HttpForm("/predict", "texts", True)
    for name in found:
        pins = (FOLDER / name / "requirements.txt").read_text("utf-8").split()
        assert all("==" in pin for pin in pins)


def test_a_peer_that_cannot_run_says_why(monkeypatch, tmp_path):
    interface = Interface(needs=("java", "sh"))
    peer = Peer("torchserve", "fp32", tmp_path / "python")
    assert "peers install torchserve" in why_not(peer, interface)
    peer.python.touch()
    monkeypatch.setattr(peers.shutil, "which", lambda name: "/bin/sh" if name == "sh" else None)
    assert why_not(peer, interface) == "no java on PATH"
    monkeypatch.setattr(peers.shutil, "which", lambda name: "/bin/sh")
    assert why_not(peer, interface) == ""
    with (
        pytest.raises(ServeError, match="torchserve fp32 cannot run"),
        serve_peer(peer._replace(python=tmp_path / "none"), tmp_path),
    ):
        pass


SERVER = """#!{python}
import http.server, os, sys
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
if "-c" in sys.argv:
    sys.exit("no versions")
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Ok).serve_forever()
"""


def test_a_peer_is_as_nice_as_our_model(tmp_path):
    python = tmp_path / "python"
    python.write_text(SERVER.format(python=sys.executable))
    python.chmod(0o755)
    with serve_peer(Peer("litserve", "fp32", python), tmp_path) as served:
        assert os.getpriority(os.PRIO_PROCESS, served.pid) == min(19, os.nice(0) + NICENESS)
        command = Path(f"/proc/{served.pid}/cmdline").read_text().split("\0")
        assert command[:2] == [sys.executable, str(python)]
        assert served.ready_s > 0
    ours = Path(__file__).parents[2] / "triton_models" / "multitask" / "1" / "model.py"
    assert f"_NICENESS = {NICENESS}\n" in ours.read_text("utf-8")


def test_a_peer_that_does_not_start_shows_what_it_said(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
    python.chmod(0o755)
    told = r"litserve fp32 ended with status 3; its last lines:\nno such model"
    with (
        pytest.raises(ServeError, match=told),
        serve_peer(Peer("litserve", "fp32", python), tmp_path),
    ):
        pass


def test_an_environment_that_cannot_be_filled_is_removed(tmp_path, monkeypatch):
    calls = []

    def run(command, check):
        calls.append(command)
        if "pip" in command:
            raise subprocess.CalledProcessError(1, command)
        Path(command[-1]).mkdir()

    monkeypatch.setattr(environments.subprocess, "run", run)
    with pytest.raises(ConfigError, match="litserve could not be made"):
        environments.install("litserve", "python3", tmp_path)
    assert calls[1][-1] == str(FOLDER / "litserve" / "requirements.txt")
    assert list(tmp_path.iterdir()) == []


def test_peers_are_listed_and_unknown_ones_refused(capsys):
    assert main(["peers", "list"]) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])) == set(known_peers())
    assert main(["peers", "install", "mlserver"]) == 1
    assert "no peer mlserver; known: bentoml" in capsys.readouterr().err


def test_facts_of_a_config():
    found = facts({
        "max_batch_size": 64,
        "instance_group": [{"count": 2}],
        "dynamic_batching": {"default_queue_policy": {
            "default_timeout_microseconds": "1000000", "max_queue_size": 256}},
        "parameters": {"variant": {"string_value": "int8"}, "classes": {"string_value": "[]"}},
    })  # fmt: skip
    assert (found["instances"], found["queue_timeout_ms"], found["max_queue_size"]) == (
        2,
        1000,
        256,
    )
    assert found["parameters"] == {"variant": "int8"}
    assert facts({})["queue_timeout_ms"] is None


def test_what_is_live_is_identified(tiny_repository, tmp_path):
    """A newer version may stand in the repository without being served."""
    assert live_version({"version_policy": {"specific": {"versions": ["9", "10"]}}}) == "10"
    repository = shutil.copytree(tiny_repository, tmp_path / "repository")
    newer = repository / "multitask" / "2"
    shutil.copytree(repository / "multitask" / "1", newer)
    path = newer / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"identity": "', '"identity": "0'), "utf-8")
    found = identity(repository, "embedded", "1")
    ours = manifest.read(tiny_repository / "multitask" / "1", "artifact").identity
    assert found["artifact"] == ours
    config = repository / "multitask" / "configs" / "embedded.pbtxt"
    config.write_text(config.read_text("utf-8").replace("max_batch_size: 64", "max_batch_size: 8"))
    assert identity(repository, "embedded", "1")["config_sha256"] != found["config_sha256"]
