"""The serving command's options, and what is read from a config."""

import pytest

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.serving.peers import parse_peer
from multitask_benchmarks.serving.served import facts, parse_repository
from multitask_core.errors import ConfigError


@pytest.mark.parametrize(
    "scenario", ["throughput", "profile", "mixed", "rollover", "overload", "soak"]
)
def test_help_teaches(scenario, capsys):
    with pytest.raises(SystemExit) as end:
        main(["serving", scenario, "--help"])
    assert end.value.code == 0
    assert f"serving {scenario}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scenario", "options", "message"),
    [
        ("mixed", ["--share", "1.5"], "--share 1.5: it must be between 0 and 1"),
        ("mixed", ["--rounds", "0"], "--rounds 0: it must be above 0"),
        ("overload", ["--half-seconds", "-1"], "--half-seconds -1.0"),
        ("soak", ["--minutes", "0"], "--minutes 0.0"),
        ("soak", [], "there is no model 'multitask' in nowhere"),
    ],
)
def test_wrong_options_are_told(scenario, options, message, capsys):
    arguments = ["--repository", "nowhere", "--data", "nothing.jsonl", *options]
    assert main(["serving", scenario, *arguments]) == 1
    assert message in capsys.readouterr().err


def test_two_servers_of_one_name_are_refused(tiny_repository, capsys):
    arguments = ["--repository", str(tiny_repository)] * 2
    assert main(["serving", "throughput", *arguments, "--checkpoint", "c", "--data", "d"]) == 1
    assert "different names" in capsys.readouterr().err


def test_repositories_and_peers_are_named(tiny_repository, tmp_path):
    assert parse_repository(str(tiny_repository)) == ("Triton", tiny_repository)
    assert parse_repository(f"int8={tiny_repository}") == ("int8", tiny_repository)
    with pytest.raises(ConfigError, match="fastapi, litserve"):
        parse_peer("torchserve=/bin/sh")
    with pytest.raises(ConfigError, match=r"no interpreter .*requirements\.txt"):
        parse_peer(f"litserve:bf16={tmp_path / 'python'}")
    peer = parse_peer("litserve:bf16=/bin/sh")
    assert (peer.title, str(peer.python)) == ("litserve bf16", "/bin/sh")


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
