"""The model repository: configs from protobuf, whole version folders."""

from pathlib import Path

import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import signature
from multitask_core.artifact import Artifact
from multitask_core.errors import ArtifactError
from multitask_core.labels import LabelSchema
from multitask_export.repository import TARGETS, config_text, model_configs, write_repository
from multitask_train import demo_corpus
from multitask_train.data.features import collect_schema
from multitask_train.data.readers import example_from_record

GOLDEN = Path(__file__).parents[2] / "triton_models"


def parsed(path: Path) -> pb.ModelConfig:
    return text_format.Parse(path.read_text(), pb.ModelConfig())


@pytest.fixture(scope="module")
def demo_schema() -> LabelSchema:
    return collect_schema(example_from_record(one) for one in demo_corpus.build()["train"])


@pytest.mark.parametrize("target", TARGETS)
def test_committed_configs_are_those_of_the_demo(target: str, demo_schema: LabelSchema) -> None:
    for config in model_configs(demo_schema, target, "fp32-fused", "model_fused.onnx"):
        assert parsed(GOLDEN / config.name / "configs" / f"{target}.pbtxt") == config
        if target == "cpu":
            assert parsed(GOLDEN / config.name / "config.pbtxt") == config


@pytest.mark.parametrize("target", TARGETS)
def test_text_and_protobuf_agree(target: str, schema: LabelSchema) -> None:
    for config in model_configs(schema, target, "fp32", "model.onnx"):
        assert text_format.Parse(config_text(config), pb.ModelConfig()) == config


def test_the_targets_differ_where_they_must(schema: LabelSchema) -> None:
    text, tensor = model_configs(schema, "embedded", "fp32-fused", "model_fused.onnx")
    assert (text.parameters["encoder"].string_value, tensor.backend) == ("in-process", "python")
    text, tensor = model_configs(schema, "cpu", "fp32-fused", "model_fused.onnx")
    assert (text.parameters["encoder"].string_value, tensor.backend) == ("bls", "onnxruntime")
    assert tensor.default_model_filename == "model_fused.onnx"


def test_the_tensor_config_fits_the_graph(tiny_repository: Path) -> None:
    config = parsed(tiny_repository / signature.TENSOR_MODEL / "config.pbtxt")
    graph = tiny_repository / signature.TENSOR_MODEL / "1" / config.default_model_filename
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    types = {"tensor(int64)": pb.TYPE_INT64, "tensor(float)": pb.TYPE_FP32}
    for nodes, tensors in (
        (session.get_inputs(), config.input),
        (session.get_outputs(), config.output),
    ):
        found = {
            node.name: (
                types[node.type],
                [size if isinstance(size, int) else -1 for size in node.shape[1:]],
            )
            for node in nodes
        }
        assert found == {one.name: (one.data_type, list(one.dims)) for one in tensors}


def test_version_folders_are_whole(tiny_artifact: Path, tiny_repository: Path) -> None:
    text = tiny_repository / signature.TEXT_MODEL / "1"
    assert sorted(path.name for path in text.iterdir()) == [
        "labels.json",
        "manifest.json",
        "model.py",
        "model_fused.onnx",
        "tokenizer.json",
    ]
    published = Artifact.open(text)
    assert published.manifest.identity == Artifact.open(tiny_artifact).manifest.identity
    assert published.graph().is_file()
    assert (text / "model.py").read_text() == (GOLDEN / "multitask" / "1" / "model.py").read_text()


def test_a_second_version_leaves_the_first(tiny_artifact: Path, tmp_path: Path) -> None:
    write_repository(tiny_artifact, tmp_path, version=1)
    write_repository(tiny_artifact, tmp_path, version=2)
    for model in (signature.TEXT_MODEL, signature.TENSOR_MODEL):
        folders = sorted(path.name for path in (tmp_path / model).iterdir() if path.is_dir())
        assert folders == ["1", "2", "configs"]


def test_a_damaged_artifact_is_not_published(tiny_artifact: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_artifact, copy)
    (copy / "model_fused.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="model_fused"):
        write_repository(copy, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
