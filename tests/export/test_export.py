"""The export writes what answers like its checkpoint, and nothing else."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import (
    AutoModel,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from multitask_core import manifest
from multitask_core.artifact import Artifact
from multitask_core.errors import ArtifactError, ConfigError, DataError, ParityError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_core.serving import Serving
from multitask_core.session import OnnxEncoder
from multitask_core.text import Windowing
from multitask_export import variants
from multitask_export.export import export_artifact, parse_allow, parse_serve
from multitask_export.task import spans
from multitask_train import checkpoint
from multitask_train.data import Example
from tiny import SENTENCES, random_model

SMALL = {
    "vocab_size": 160,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
LENIENT = variants.Budget(None, 1, 1, clear_labels=True, accuracy=100, f1=100)


def test_every_variant_answers_like_the_checkpoint(
    tiny_checkpoint: Path, tiny_artifact: Path
) -> None:
    expected = checkpoint.load_pipeline(tiny_checkpoint).predict(SENTENCES)
    for variant in ("fp32", "fp32-fused", "fp32-packed"):
        pipeline = Pipeline.from_artifact(tiny_artifact, variant=variant, engine="onnxruntime")
        answers = pipeline.predict(SENTENCES)
        for mine, theirs in zip(answers, expected, strict=True):
            assert mine.label == theirs.label
            assert spans(mine) == spans(theirs)
            assert mine.score == pytest.approx(theirs.score, abs=1e-4)


def test_the_artifact_says_what_it_is(tiny_checkpoint: Path, tiny_artifact: Path) -> None:
    record = manifest.verify(tiny_artifact, "artifact")
    assert record.parent == manifest.read(tiny_checkpoint, "checkpoint").identity
    assert record.config["default"] == "fp32-packed"
    report = json.loads((tiny_artifact / "parity.json").read_text())
    assert report["fp32"]["histogram"]["class_logits"]
    assert record.config["checkpoint"] == record.parent == report["checkpoint"]
    assert report["fp32-fused"]["operators"]["Attention"] == 2
    assert report["fp32"]["labels_changed"] == 0
    assert Artifact.open(tiny_artifact).text_encoder().windowing == Windowing(32, 8)


def test_the_graph_is_readable_by_older_runtimes(tiny_artifact: Path) -> None:
    for name in ("model.onnx", "model_fused.onnx", "model_packed.onnx"):
        model = onnx.load(tiny_artifact / name)
        assert model.ir_version <= 9
        standard = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
        assert standard == [17]


def test_left_padding_is_answered_rightly(tiny_artifact: Path) -> None:
    """The fused graph takes the raw mask, so padding may stand anywhere."""
    artifact = Artifact.open(tiny_artifact)
    encoder = OnnxEncoder(artifact.graph("fp32-fused"), artifact.schema, threads=1)
    plain = OnnxEncoder(artifact.graph("fp32"), artifact.schema, threads=1)
    ids = np.array([[0, 0, 2, 9, 10, 3]])
    mask = np.array([[0, 0, 1, 1, 1, 1]])
    np.testing.assert_allclose(encoder.run(ids, mask)[0], plain.run(ids, mask)[0], atol=1e-4)


def test_the_best_variant_that_passed_serves(tiny_artifact: Path) -> None:
    targets = manifest.read(tiny_artifact, "artifact").config["targets"]
    assert targets == {
        "embedded": "fp32-packed",
        "cpu": "fp32-packed",
        "cuda": "fp16-fused",
        "tensorrt": "fp16",
    }


def test_the_page_shows_every_variant(tiny_artifact: Path) -> None:
    page = (tiny_artifact / "parity.html").read_text()
    for name in manifest.read(tiny_artifact, "artifact").config["graphs"]:
        assert f"<td>{name}</td>" in page
        assert f"{name}: token_logits" in page


def test_two_exports_of_one_checkpoint_are_equal_to_the_byte(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    names = ["fp32-fused", "fp32-packed", "fp16", "fp16-fused"]
    serving = Serving(engine="onnxruntime")
    again = export_artifact(tiny_checkpoint, tmp_path / "again", variants=names, serving=serving)
    for path in sorted(tiny_artifact.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_int8_is_written_when_it_passes_and_nothing_when_not(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(variants.BUDGETS, "int8", LENIENT)
    output = export_artifact(
        tiny_checkpoint, tmp_path / "out", variants=["int8"], serve={"embedded": "int8"}
    )
    assert sorted(Artifact.open(output).graphs) == ["fp32", "int8"]
    assert sorted(path.suffix for path in output.iterdir()).count(".onnx") == 2
    assert len(Pipeline.from_artifact(output).predict(SENTENCES)) == len(SENTENCES)
    figures = json.loads((output / "parity.json").read_text())["int8"]
    changed = figures["changed_by_recipe"]
    assert set(changed) == {"dynamic", "static"}
    assert changed[figures["recipe"]] == min(changed.values())

    strict = replace(LENIENT, logits=1e-6)
    monkeypatch.setitem(variants.BUDGETS, "int8", strict)
    with pytest.raises(ParityError, match=r"int8: logits differ.*\(static\).*in FP32"):
        export_artifact(tiny_checkpoint, tmp_path / "refused", variants=["int8"])
    assert not (tmp_path / "refused").exists()

    output = export_artifact(tiny_checkpoint, tmp_path / "without")
    report = json.loads((output / "parity.json").read_text())
    assert "logits differ" in report["int8"]["refused"]
    assert "logits differ" in report["int8-packed"]["refused"]
    assert "int8" not in Artifact.open(output).graphs
    assert not list(output.glob("*int8*"))
    assert "int8</b> was left out" in (output / "parity.html").read_text()


@pytest.mark.parametrize("budget", [1e-7, 4e-3], ids=["both fail", "only the rounded graph fails"])
def test_a_variant_beyond_its_budget_needs_a_reason(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float
) -> None:
    monkeypatch.setitem(variants.BUDGETS, "fp16", replace(LENIENT, logits=budget))
    output = export_artifact(
        tiny_checkpoint, tmp_path / "out", variants=["fp16"], allow={"fp16": "measured elsewhere"}
    )
    record = manifest.read(output, "artifact")
    assert record.config["allowed"] == {"fp16": "measured elsewhere"}
    assert "fp16" not in record.config["targets"].values()  # it must be asked for
    figures = record.report["fp16"]
    assert figures["allowed"] == "measured elsewhere"
    assert "logits differ" in figures["failed"]
    assert "measured elsewhere" in (output / "parity.html").read_text()
    with pytest.raises(ConfigError, match="--allow fp16: give a reason"):
        parse_allow(["fp16="])


def test_choices_of_variants() -> None:
    assert parse_serve(["int8", "cuda=fp16"]) == {
        "embedded": "int8",
        "cpu": "int8",
        "cuda": "fp16",
    }
    passed = {"fp32": {}, "fp16": {}, "fp16-fused": {"refused": "it differs"}}
    assert variants.choose(passed, {})["cuda"] == "fp16"
    assert variants.choose(passed, {"cuda": "fp32"})["cuda"] == "fp32"
    mixed = {"fp32": {}, "fp16": {"kept_in_fp32": ["node"]}}
    assert variants.choose(mixed, {})["cuda"] == "fp16"
    assert "tensorrt" not in variants.choose(mixed, {})


def test_a_target_cannot_serve_what_it_cannot_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tensorrt cannot serve fp16-packed; it serves fp16"):
        export_artifact(tiny_checkpoint, tmp_path / "o", serve={"tensorrt": "fp16-packed"})
    with pytest.raises(ConfigError, match="--allow fp32: it is what all others are made from"):
        export_artifact(tiny_checkpoint, tmp_path / "o", allow={"fp32": "because"})


def test_sentences_of_another_task_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"text": "play", "label": "banking"}')
    with pytest.raises(DataError, match="labels that the checkpoint does not know: banking"):
        export_artifact(tiny_checkpoint, tmp_path / "out", data=str(path))


def test_whatever_goes_wrong_in_one_variant_leaves_the_others(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("multitask_export.fusion.fuse", fail)
    output = export_artifact(tiny_checkpoint, tmp_path / "out")
    report = manifest.read(output, "artifact").report
    assert report["fp32-fused"]["refused"] == (
        "fp32-fused cannot be made: RuntimeError: no such operator"
    )
    assert "fp32-packed" in Artifact.open(output).graphs


def test_unknown_target(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown target tpu; there are embedded, cpu"):
        export_artifact(tiny_checkpoint, tmp_path / "out", serve={"tpu": "fp32"})


@pytest.mark.parametrize(
    "config",
    [
        DistilBertConfig(vocab_size=160, dim=32, n_layers=1, n_heads=2, hidden_dim=64),
        RobertaConfig(pad_token_id=0, max_position_embeddings=66, **SMALL),
        MPNetConfig(**SMALL),
        ModernBertConfig(pad_token_id=0, reference_compile=False, **SMALL),
    ],
    ids=lambda config: config.model_type,
)
def test_other_encoders(config, tiny_encoder: Path, schema: LabelSchema, tmp_path: Path) -> None:
    """Standard FP32 for any encoder; what cannot be fused is left out, with its reason."""
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, encoder)
    AutoModel.from_config(config).save_pretrained(encoder)
    folder = tmp_path / "run"
    checkpoint.save(
        folder,
        random_model(encoder, schema),
        checkpoint.load_tokenizer(str(tiny_encoder)),
        card="",
        metrics={},
        config={},
        samples=[Example(text, "music") for text in SENTENCES],
        data="",
    )
    output = export_artifact(folder, tmp_path / "out")
    expected = checkpoint.load_pipeline(folder).predict(SENTENCES)
    for mine, theirs in zip(
        Pipeline.from_artifact(output).predict(SENTENCES), expected, strict=True
    ):
        assert spans(mine) == spans(theirs)
    report = json.loads((output / "parity.json").read_text())
    assert report["fp32"]["labels_changed"] == 0
    assert "Attention" in report["fp32-fused"].get("refused", "Attention")
    if config.model_type == "mpnet":
        assert "0 of its 1 layers call scaled_dot" in report["fp32-packed"]["refused"]
    else:
        assert report["fp32-packed"]["labels_changed"] == 0


def test_unknown_variant(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown variant fp8; there are fp32"):
        export_artifact(tiny_checkpoint, tmp_path / "out", variants=["fp8"])


def test_a_tampered_graph_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_artifact, copy)
    graph = copy / "model_packed.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model_packed\.onnx has SHA-256"):
        Pipeline.from_artifact(copy)


def test_labels_of_another_model_are_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="graph and labels are of different models"):
        OnnxEncoder(tiny_artifact / "model.onnx", LabelSchema(("a",), ("b",)))


def test_command_refuses_a_truncated_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "multitask_export",
            "--checkpoint",
            str(copy),
            "--output",
            str(tmp_path / "o"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1
    assert "model.safetensors has 1,000 bytes" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


def test_fp16_keeps_what_overflows_in_fp32_and_says_so(
    tiny_encoder: Path, schema: LabelSchema, tmp_path: Path
) -> None:
    """A layer whose sums leave FP16's range; the norm behind them brings them back."""
    model = random_model(tiny_encoder, schema)
    with torch.no_grad():
        dense = model.encoder.encoder.layer[1].output.dense
        dense.weight.mul_(3e4)
    folder = tmp_path / "run"
    checkpoint.save(
        folder,
        model,
        checkpoint.load_tokenizer(str(tiny_encoder)),
        card="",
        metrics={},
        config={},
        samples=[Example(text, "music") for text in SENTENCES],
        data="",
    )
    output = export_artifact(folder, tmp_path / "out", variants=["fp16", "fp16-fused"])
    report = manifest.read(output, "artifact").report
    kept = report["fp16"]["kept_in_fp32"]
    assert any("layer.1/output" in name for name in kept)
    assert len(kept) < 8
    assert report["fp16"]["rounded"]["labels_changed"] == 0
    assert report["fp16-fused"]["kept_in_fp32"]
    assert kept[0] in (output / "parity.html").read_text()
    expected = checkpoint.load_pipeline(folder).predict(SENTENCES)
    for variant in ("fp16", "fp16-fused"):
        answers = Pipeline.from_artifact(output, variant=variant).predict(SENTENCES)
        assert [one.label for one in answers] == [one.label for one in expected]
