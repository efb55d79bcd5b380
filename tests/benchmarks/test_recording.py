"""Options → what the result file says of them."""

import argparse
import json
from pathlib import Path

import pytest

from multitask_benchmarks.recording import (
    add_result_arguments,
    make_config,
    make_record,
    model_name,
    require_positive,
    scenario_name,
)
from multitask_core import manifest
from multitask_core.artifact import Artifact
from multitask_core.errors import ConfigError


def test_paths_become_names_with_hashes(tiny_artifact, tiny_repository, corpus, tmp_path):
    options = argparse.Namespace(
        kind="serving x", execute=print, function=print, output=tmp_path, name="n", as_=None,
        artifact=tiny_artifact, repository=[f"fp32={tiny_repository}"], data=str(corpus),
        peer=["fastapi=/bin/sh"], missing=tmp_path / "none", rounds=5, sizes=[1, 8], url="h:1",
        source="hub:owner/name",
    )  # fmt: skip
    config = make_config(options)
    assert str(tmp_path) not in json.dumps(config)
    identity = Artifact.open(tiny_artifact).manifest.identity
    assert config == {
        "artifact": tiny_artifact.name,
        "artifact_sha256": identity,
        "data": corpus.name,
        "data_sha256": manifest.sha256(corpus),
        "missing": "none",
        "peer": [f"fastapi={Path('/bin/sh').resolve().name}"],
        "repository": [f"fp32={tiny_repository.name}"],
        "repository_sha256": [identity],
        "rounds": 5,
        "sizes": [1, 8],
        "source": "hub:owner/name",
    }


def test_messages_lose_the_folders_of_this_machine(tmp_path):
    said = {
        "not_run": {"x": f"{tmp_path}/model.onnx has no output; it has ['/token_head/out/MatMul']"},
        "tried": [f"log: {tmp_path}/a b/log.txt", "see https://host/tmp/page", 5, None],
    }
    details = make_record(argparse.Namespace(kind="engines"), details=said).details
    assert details["not_run"]["x"] == "model.onnx has no output; it has ['/token_head/out/MatMul']"
    assert str(tmp_path.parent) not in json.dumps(details)
    assert details["tried"][1:] == ["see https://host/tmp/page", 5, None]


def test_a_folder_of_data_is_known_by_all_it_holds(tmp_path):
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    files = [data / "test.jsonl", data / "train" / "seq.in"]
    for path in files:
        path.write_text("one")
    seen = []

    def digest(**options):
        return make_config(argparse.Namespace(**options)).get("data_sha256")

    seen.append(digest(data=str(data)))
    assert digest(data=data) == seen[0]
    files[1].write_text("two")
    seen.append(digest(data=str(data)))
    files[1].rename(data / "train" / "seq.out")
    seen.append(digest(data=str(data)))
    assert len({*seen}) == 3
    assert all(len(one) == 64 for one in seen)
    # An encoder's folder may hold gigabytes, and is named alone.
    assert "encoder_sha256" not in make_config(argparse.Namespace(encoder=str(data)))


def test_names():
    parser = argparse.ArgumentParser()
    add_result_arguments(parser)
    options = parser.parse_args([])
    options.kind, options.checkpoint = "serving throughput", Path("runs/snips")
    assert (model_name(options), scenario_name(options)) == ("snips", "throughput")
    assert scenario_name(options, "graphs data") == "graphs data"
    options.artifact, options.as_ = Path("artifacts/minilm"), "mine"
    assert (model_name(options), scenario_name(options, "x")) == ("minilm", "mine")
    assert model_name(argparse.Namespace(name="given")) == "given"
    assert model_name(argparse.Namespace()) == "multitask"


def test_settings_above_zero():
    options = argparse.Namespace(rounds=1, sizes=[1, 0])
    require_positive(options, "rounds")
    with pytest.raises(ConfigError, match=r"--sizes \[1, 0\]: it must be above 0"):
        require_positive(options, "rounds", "sizes")
