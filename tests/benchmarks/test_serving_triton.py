"""The scenarios on a real Triton with a tiny model, some seconds each: `make test-triton`."""

import json

import pytest

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.serving import closed, throughput
from multitask_export.export import export_artifact
from multitask_train import checkpoint
from multitask_train.data import Example
from tiny import SENTENCES, random_model

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    """Logs and records stay out of the user's cache; waits are short."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(throughput, "IDLE_S", 0.1)
    monkeypatch.setattr(closed, "CAPACITY_S", 0.5)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = [
        json.dumps({"text": f"{text} {n}", "label": "music"})
        for text in SENTENCES
        for n in range(8)
    ]
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture
def bench(data, tmp_path, capsys):
    """Run a scenario; return its status and its result file."""

    def bench(scenario, *options):
        output = tmp_path / "out"
        given = ["--data", str(data), "--texts", "40", "--name", "tiny", "--output", str(output)]
        status = main(["serving", scenario, *map(str, options), *given])
        said = capsys.readouterr()
        assert said.out, said.err
        line = json.loads(said.out.splitlines()[-1])
        (path,) = output.glob(f"tiny-serving-{scenario}_*.json")
        assert line["file"] == str(path)
        return status, json.loads(path.read_text("utf-8"))

    return bench


def test_throughput(bench, tiny_repository, tiny_checkpoint):
    short = ["--rounds", 2, "--seconds", 0.5, "--sizes", 1, 8]
    status, record = bench(
        "throughput", "--repository", tiny_repository, "--checkpoint", tiny_checkpoint, *short
    )
    assert status == 0
    assert record["agreement"]["Triton"]["all_equal"] == 40
    (one, eight) = record["results"]
    assert (one["size"], eight["size"]) == (1, 8)
    assert len(one["rounds"]) == len(one["cpu_rounds"]["server_ms_a_text"]) == 2
    assert sum(one["cpu_rounds"]["server_ms_a_text"]) > 0
    assert eight["server_rounds"]["mean_batch"][0] > 1
    assert record["subjects"]["Triton"]["instances"] >= 1


def test_profile(bench, tiny_repository, tiny_artifact):
    short = ["--rounds", 1, "--seconds", 1, "--sizes", 8]
    status, record = bench(
        "profile", "--repository", tiny_repository, "--artifact", tiny_artifact, *short
    )
    assert status == 0
    (found,) = record["results"]
    assert 0 < found["outside_encoder"]["median"] < 1
    names = found["rounds"]["cpu_s"][0]
    assert "tritonserver" in names
    assert any(name.startswith("stub multitask/1") for name in names)
    assert found["rounds"]["counted"][0]["multitask_texts_total"] == found["rounds"]["texts"][0]


def test_mixed(bench, tiny_repository):
    short = ["--rounds", 1, "--seconds", 1, "--sizes", 4, "--words", 60]
    status, record = bench("mixed", "--repository", tiny_repository, *short)
    assert status == 0
    (found,) = record["results"]
    assert found["ratio"]["p99_ms"]["median"] > 0
    assert 0 < found["share_of_long"][0] < 0.06


def test_overload(bench, tiny_repository):
    short = ["--seconds", 1, "--half-seconds", 1, "--generators", 1]
    status, record = bench("overload", "--repository", tiny_repository, *short, "--callers", 8)
    assert status == 0
    assert record["phases"]["overload"]["sent"] > record["phases"]["before"]["sent"] > 0
    assert record["phases"]["before"]["answered"]["count"] > 0
    assert record["memory"]["largest_mib"] > 10


def test_rollover(bench, tiny_artifact, tiny_encoder, schema, tmp_path):
    other = tmp_path / "runs" / "other"
    checkpoint.save(
        other,
        random_model(tiny_encoder, schema, seed=9),
        checkpoint.load_tokenizer(str(tiny_encoder)),
        card="# other\n",
        metrics={},
        config={},
        samples=[Example(text, "music") for text in SENTENCES],
        data="none",
    )
    b = export_artifact(other, tmp_path / "b", variants=["fp32-fused", "fp32-packed"])
    status, record = bench(
        "rollover", "--artifact", tiny_artifact, "--artifact-b", b, "--times", 2,
        "--requests", 200, "--concurrency", 8,
    )  # fmt: skip
    assert record["operator_error"] == ""
    assert [one["command"] for one in record["steps"]] == ["publish", "rollback"] * 2
    assert record["verdict"]["faults"] == 0, record["verdict"]
    assert status == 0
    assert record["texts_that_tell_a_from_b"] > 0
    assert set(record["artifact_of_version"].values()) == {"A", "B"}
    assert len(record["verdict"]["by_version"]) >= 2
