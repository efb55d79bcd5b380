"""Checkpoints with random weights, the export's figures as a table, and its time."""

import json
from pathlib import Path

import pytest

from multitask_benchmarks import variants
from multitask_benchmarks.__main__ import main
from multitask_benchmarks.results import read_results
from multitask_core.artifact import Artifact
from multitask_train import checkpoint
from tiny import SENTENCES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    entities = [{"start": 0, "end": 1, "type": "genre"}]
    lines = [json.dumps({"text": one, "label": "music", "entities": entities}) for one in SENTENCES]
    path.write_text("\n".join(lines))
    return path


def test_an_untrained_checkpoint_can_be_loaded(data, tmp_path, monkeypatch, capsys) -> None:
    from multitask_benchmarks import untrained

    monkeypatch.setitem(untrained.SHAPES, "minilm", {"hidden": 32, "layers": 1, "heads": 2})
    given = ["--encoder", "minilm", "--data", str(data), "--output", str(tmp_path / "run")]
    assert main(["untrained", *given, "--max-length", "64"]) == 0
    pipeline = checkpoint.load_pipeline(tmp_path / "run")
    assert pipeline.text_encoder.windowing.max_length == 64
    assert len(pipeline.predict(SENTENCES)) == len(SENTENCES)


def test_the_exports_figures_become_a_table(tiny_artifact, tmp_path, capsys) -> None:
    given = ["--artifact", str(tiny_artifact), "--name", "tiny", "--output", str(tmp_path)]
    assert main(["variants", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(" | ")[0] for line in lines[2:-1]]
    assert "| fp32-packed on openvino" in names
    assert [name for name in names if " on " not in name] == [
        "| fp32",
        "| fp32-fused",
        "| fp32-packed",
        "| fp16-fused",
        "| fp16",
    ]
    assert {line.count("|") for line in lines[:-1]} == {9}
    record = read_results(Path(json.loads(lines[-1])["file"])).scenarios["export"]
    assert record.details["report"]["fp16"]["kept_in_fp32"] == []
    assert record.details["tools"]["onnx"]
    identity = Artifact.open(tiny_artifact).manifest.identity
    assert record.config["artifact_sha256"] == record.details["artifact"] == identity


def test_a_refused_variant_stands_in_the_table() -> None:
    text = variants.table({"int8": {"refused": "int8: logits differ"}})
    assert "| int8 | refused: int8: logits differ |" in text


def test_exports_are_timed_in_processes_of_their_own(tiny_checkpoint, tmp_path, capsys) -> None:
    given = ["--name", "tiny", "--output", str(tmp_path), "--rounds", "1", "--variants"]
    command = ["export-time", "--checkpoint", str(tiny_checkpoint), *given]
    assert main([*command, "fp32"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    record = read_results(Path(line["file"])).scenarios["export-time"]
    (measured,) = record.measurements
    figures = {name: metric.median for name, metric in measured.metrics.items()}
    assert figures["seconds"] == line["result"]["fp32"]
    assert figures["peak_mib"] > figures["artifact_mib"] > 0
    assert record.config["checkpoint_sha256"]
    assert main([*command, "fp31"]) == 1
    assert "the export ended with status 1:\nerror: " in capsys.readouterr().err
