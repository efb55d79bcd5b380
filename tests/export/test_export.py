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
from onnx import numpy_helper
from transformers import (
    AutoModel,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from multitask_core import manifest
from multitask_core.artifact import Artifact
from multitask_core.errors import ArtifactError, ConfigError, ParityError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_core.session import OnnxEncoder
from multitask_core.text import Windowing
from multitask_export import parity, variants
from multitask_export.export import export_artifact
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


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> parity.Reference:
    return parity.Reference(checkpoint.load_pipeline(tiny_checkpoint), SENTENCES)


def candidate(path: Path, tiny_artifact: Path) -> Pipeline:
    artifact = Artifact.open(tiny_artifact)
    encoder = OnnxEncoder(path, artifact.schema, threads=1)
    return Pipeline(artifact.text_encoder(), encoder, artifact.schema)


def edited(source: Path, target: Path, edit) -> Path:
    model = onnx.load(source)
    edit(model.graph)
    onnx.save(model, target)
    return target


def test_every_variant_answers_like_the_checkpoint(
    tiny_checkpoint: Path, tiny_artifact: Path
) -> None:
    expected = checkpoint.load_pipeline(tiny_checkpoint).predict(SENTENCES)
    for variant in ("fp32", "fp32-fused"):
        answers = Pipeline.from_artifact(tiny_artifact, variant=variant).predict(SENTENCES)
        for mine, theirs in zip(answers, expected, strict=True):
            assert mine.label == theirs.label
            assert parity.spans(mine) == parity.spans(theirs)
            assert mine.score == pytest.approx(theirs.score, abs=1e-4)


def test_the_artifact_says_what_it_is(tiny_checkpoint: Path, tiny_artifact: Path) -> None:
    record = manifest.verify(tiny_artifact, "artifact")
    assert record.parent == manifest.read(tiny_checkpoint, "checkpoint").identity
    assert record.config["default"] == "fp32-fused"
    report = json.loads((tiny_artifact / "parity.json").read_text())
    assert report == record.report
    assert report["fp32-fused"]["operators"]["Attention"] == 2
    assert report["fp32"]["labels_changed"] == 0
    assert Artifact.open(tiny_artifact).text_encoder().windowing == Windowing(32, 8)


def test_the_graph_is_readable_by_older_runtimes(tiny_artifact: Path) -> None:
    for name in ("model.onnx", "model_fused.onnx"):
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
    np.testing.assert_allclose(encoder(ids, mask)[0], plain(ids, mask)[0], atol=1e-4)


def test_swapped_outputs_are_caught(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema
) -> None:
    def swap(graph) -> None:
        graph.output[0].name, graph.output[1].name = graph.output[1].name, graph.output[0].name

    path = edited(tiny_artifact / "model.onnx", tmp_path / "swapped.onnx", swap)
    with pytest.raises(ParityError, match="class_logits has axes"):
        parity.check_names(path, schema)


def test_a_renamed_input_is_caught(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema
) -> None:
    def rename(graph) -> None:
        graph.input[0].name = "ids"

    path = edited(tiny_artifact / "model.onnx", tmp_path / "renamed.onnx", rename)
    with pytest.raises(ParityError, match=r"inputs are \['attention_mask', 'ids'\]"):
        parity.check_names(path, schema)


def test_a_fixed_axis_is_caught(tiny_artifact: Path, tmp_path: Path, schema: LabelSchema) -> None:
    def fix(graph) -> None:
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16

    path = edited(tiny_artifact / "model.onnx", tmp_path / "fixed.onnx", fix)
    with pytest.raises(ParityError, match=r"input_ids has axes \(-1, 16\)"):
        parity.check_names(path, schema)


@pytest.mark.parametrize(
    ("scale", "message"), [(1.01, "logits differ by up to"), (np.nan, "finite")]
)
def test_changed_weights_are_caught(
    tiny_artifact: Path, tmp_path: Path, reference: parity.Reference, scale: float, message: str
) -> None:
    def change(graph) -> None:
        weight = next(one for one in graph.initializer if one.name == "token_head.output.bias")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * scale, weight.name))

    path = edited(tiny_artifact / "model.onnx", tmp_path / "changed.onnx", change)
    with pytest.raises(ParityError, match=message):
        parity.check_budget(
            "changed", reference.measure(candidate(path, tiny_artifact)), variants.EXACT
        )


def test_changed_answers_are_caught(
    reference: parity.Reference, tiny_encoder, schema, tiny_artifact
) -> None:
    """A graph allowed to differ in logits must still give the same answers."""
    other = checkpoint.TorchEncoder(random_model(tiny_encoder, schema, seed=2))
    pipeline = Pipeline(Artifact.open(tiny_artifact).text_encoder(), other, schema)
    measured = reference.measure(pipeline)
    with pytest.raises(ParityError, match="sentences change their"):
        parity.check_budget("other", measured, variants.Budget(None, 0.02, 0.1))


def test_a_graph_that_does_not_fuse_is_refused(
    tiny_artifact: Path, tmp_path: Path, tiny_checkpoint
) -> None:
    """One fused Attention a layer, or none of it."""
    model, _ = checkpoint.load(tiny_checkpoint)
    config = model.config.encoder_config
    config.num_hidden_layers = 3
    with pytest.raises(ParityError, match="2 fused Attention nodes for 3 layers"):
        variants.fuse(tiny_artifact / "model.onnx", tmp_path / "fused.onnx", config)


def test_int8_is_written_when_it_passes_and_nothing_when_not(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = variants.VARIANTS["int8"]
    lenient = replace(int8, budget=variants.Budget(None, 1, 1))
    monkeypatch.setitem(variants.VARIANTS, "int8", lenient)
    output = export_artifact(tiny_checkpoint, tmp_path / "out", variants=["int8"], default="int8")
    assert sorted(Artifact.open(output).graphs) == ["fp32", "int8"]
    assert sorted(path.suffix for path in output.iterdir()).count(".onnx") == 2
    assert len(Pipeline.from_artifact(output).predict(SENTENCES)) == len(SENTENCES)
    operators = json.loads((output / "parity.json").read_text())["int8"]["operators"]
    assert operators["QAttention"] == 2

    strict = replace(int8, budget=variants.EXACT)
    monkeypatch.setitem(variants.VARIANTS, "int8", strict)
    with pytest.raises(ParityError, match="int8: logits differ"):
        export_artifact(tiny_checkpoint, tmp_path / "refused", variants=["int8"])
    assert not (tmp_path / "refused").exists()

    output = export_artifact(tiny_checkpoint, tmp_path / "without")
    assert sorted(Artifact.open(output).graphs) == ["fp32", "fp32-fused"]
    assert "logits differ" in json.loads((output / "parity.json").read_text())["int8"]["refused"]
    assert not (output / "model_int8.onnx").exists()


def test_the_second_recipe_keeps_one_product_a_layer(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = variants.VARIANTS["int8"]

    def refuse(*_: object) -> None:
        raise ParityError("refused")

    recipes = {"first": refuse, **int8.recipes}
    lenient = replace(int8, recipes=recipes, budget=variants.Budget(None, 1, 1))
    monkeypatch.setitem(variants.VARIANTS, "int8", lenient)
    output = export_artifact(tiny_checkpoint, tmp_path / "all")
    every = json.loads((output / "parity.json").read_text())["int8"]
    assert every["recipe"] == "all products"

    model, _ = checkpoint.load(tiny_checkpoint)
    source, target = output / "model_fused.onnx", tmp_path / "kept.onnx"
    variants.quantize_but_contractions(source, target, model.config.encoder_config)
    kept = variants.op_counts(target)
    assert kept["MatMul"] == every["operators"].get("MatMul", 0) + 2


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
        assert parity.spans(mine) == parity.spans(theirs)
    report = json.loads((output / "parity.json").read_text())
    assert report["fp32"]["labels_changed"] == 0
    assert "Attention" in report["fp32-fused"].get("refused", "Attention")


def test_unknown_variant(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown variant fp8; there are fp32"):
        export_artifact(tiny_checkpoint, tmp_path / "out", variants=["fp8"])


def test_a_tampered_graph_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_artifact, copy)
    graph = copy / "model_fused.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model_fused\.onnx has SHA-256"):
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
