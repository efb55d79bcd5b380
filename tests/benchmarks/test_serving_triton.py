"""The scenarios on a real Triton with a tiny model, some seconds each: `make test-triton`."""

import json
import shutil

import pytest

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.results import read_results
from multitask_benchmarks.serving import closed, servers
from multitask_export.export import export_artifact
from multitask_train import checkpoint
from multitask_train.data import Example
from tiny import SENTENCES, random_model

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    """Logs and records stay out of the user's cache; waits are short."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(servers, "IDLE_S", 0.1)
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
        (path,) = output.glob("tiny_*.json")
        assert line["file"] == str(path)
        return status, read_results(path).scenarios[scenario]

    return bench


def test_throughput(bench, tiny_repository, tiny_checkpoint):
    short = ["--rounds", 2, "--seconds", 0.5, "--sizes", 1, 8]
    status, record = bench(
        "throughput", "--repository", tiny_repository, "--checkpoint", tiny_checkpoint, *short
    )
    assert status == 0
    assert record.details["agreement"]["Triton"]["all_equal"] == 40
    (one, eight) = record.measurements
    assert (one.point, eight.point) == ({"callers": 1}, {"callers": 8})
    assert len(one.metrics["p50_ms"].rounds) == 2
    assert sum(one.metrics["server_cpu_ms_a_text"].rounds) > 0
    assert eight.metrics["mean_batch"].rounds[0] > 1
    assert record.config["repository_sha256"]
    assert record.details["subjects"]["Triton"]["instances"] >= 1


def test_rates(bench, tiny_repository, tiny_checkpoint):
    status, record = bench(
        "rates", "--repository", f"tiny={tiny_repository}", "--checkpoint", tiny_checkpoint,
        "--rates", 40, 160, "--rounds", 2, "--seconds", 1,
    )  # fmt: skip
    assert status == 0
    assert record.details["agreement"]["tiny"]["all_equal"] == 40
    assert [one.point for one in record.measurements] == [
        {"rate_per_s": 40.0},
        {"rate_per_s": 160.0},
    ]
    for one in record.measurements:
        found = {name: metric.median for name, metric in one.metrics.items()}
        assert found["answered_share"] == 1
        assert found["p95_ms"] >= found["p50_ms"] > 0
        # Triton's part of the mean latency that the client saw.
        assert 0 < found["compute_ms"] < found["mean_ms"]
        assert found["queue_ms"] > 0
        assert found["server_pss_mib"] > 20
    slow, fast = (one.metrics["sent_per_s"].median for one in record.measurements)
    assert fast > 2 * slow


def test_max_rate(bench, tiny_repository):
    status, record = bench(
        "max-rate", "--repository", tiny_repository, "--p99-ms", 2000, "--rounds", 2,
        "--seconds", 0.5, "--confirm-seconds", 0.5, "--tolerance", 0.5, "--callers", 4,
    )  # fmt: skip
    assert status == 0
    (found,) = record.measurements
    assert found.point == {"target_p99_ms": 2000.0}
    assert len(found.metrics["max_rate_per_s"].rounds) == 2
    assert found.metrics["max_rate_per_s"].median > 10
    assert min(found.metrics["within_share"].rounds) >= 0.99
    (search,) = record.details["searches"]
    assert [trail[-1][1] for trail in search["tried"]] == [True, True]


def test_start(bench, tiny_repository):
    status, record = bench(
        "start", "--repository", tiny_repository, "--rounds", 2, "--warm-calls", 20, "--evict"
    )
    assert status == 0
    (found,) = record.measurements
    values = {name: metric.median for name, metric in found.metrics.items()}
    assert values["first_answer_s"] > values["ready_s"] > 0.1
    assert values["first_ms"] > 0
    assert values["warm_ms"] > values["compute_ms"] > 0
    assert values["server_rss_mib"] >= values["ready_rss_mib"] > 20
    assert len(found.metrics["stop_s"].rounds) == 2
    facts = record.details["subjects"]["Triton"]
    assert (facts["kind"], facts["version"]) == ("triton", "1")
    assert facts["engine"]["engine"] == "onnxruntime"
    assert facts["engine"]["onnxruntime"]
    assert facts["artifact"] == record.config["repository_sha256"][0]
    assert len(facts["config_sha256"]) == 64


def test_cross_check_with_whatever_is_on_path(bench, tiny_repository):
    short = ["--sizes", 2, "--rounds", 1, "--seconds", 1.5]
    status, record = bench("cross-check", "--repository", tiny_repository, *short)
    assert status == 0
    if shutil.which("perf_analyzer"):
        ours, theirs = record.measurements
        assert (ours.subject, theirs.subject) == ("closed loop", "perf_analyzer")
        assert theirs.metrics["answers_per_s"].median > 0
        assert theirs.metrics["p99_ms"].median >= theirs.metrics["p50_ms"].median > 0
    else:
        assert record.measurements == []
        assert record.details["not_run"] == {"perf_analyzer": "no perf_analyzer on PATH"}


def test_profile(bench, tiny_repository, tiny_artifact):
    short = ["--rounds", 1, "--seconds", 1, "--sizes", 8]
    status, record = bench(
        "profile", "--repository", tiny_repository, "--artifact", tiny_artifact, *short
    )
    assert status == 0
    _, server = record.measurements
    assert 0 < server.metrics["outside_encoder_share"].median < 1
    (found,) = record.details["rounds"]
    names = found["cpu_s"][0]
    assert "tritonserver" in names
    assert any(name.startswith("stub multitask/1") for name in names)
    assert found["counted"][0]["multitask_texts_total"] == found["texts"][0]


def test_mixed(bench, tiny_repository):
    short = ["--rounds", 1, "--seconds", 1, "--sizes", 4, "--words", 60]
    status, record = bench("mixed", "--repository", tiny_repository, *short)
    assert status == 0
    alone, mixed = record.measurements
    assert (alone.subject, record.baseline) == ("short texts alone",) * 2
    assert mixed.metrics["p99_ms"].median > 0
    assert mixed.metrics["compute_ms"].median > alone.metrics["compute_ms"].median > 0
    assert min(one.metrics["queue_ms"].median for one in (alone, mixed)) > 0
    assert 0 < mixed.metrics["long_share"].rounds[0] < 0.06


def test_overload(bench, tiny_repository):
    short = ["--seconds", 1, "--half-seconds", 1, "--generators", 1]
    status, record = bench("overload", "--repository", tiny_repository, *short, "--callers", 8)
    assert status == 0
    assert (
        record.details["phases"]["overload"]["sent"]
        > record.details["phases"]["before"]["sent"]
        > 0
    )
    assert record.details["phases"]["before"]["answered"]["count"] > 0
    assert record.details["memory"]["largest_mib"] > 10


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
    assert record.details["operator_error"] == ""
    assert [one["command"] for one in record.details["steps"]] == ["publish", "rollback"] * 2
    assert record.details["verdict"]["faults"] == 0, record.details["verdict"]
    assert (status, record.details["finished"]) == (0, True)
    assert record.details["texts_that_tell_a_from_b"] > 0
    assert set(record.details["artifact_of_version"].values()) == {"A", "B"}
    assert len(record.details["verdict"]["by_version"]) >= 2
