"""The model repository: configs from protobuf, whole version folders."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import signature
from multitask_core.artifact import Artifact
from multitask_core.config import load
from multitask_core.errors import ArtifactError
from multitask_core.labels import LabelSchema
from multitask_core.serving import Serving
from multitask_export.configs import (
    CONTAINER,
    Served,
    config_text,
    tensor_config,
    text_config,
)
from multitask_export.export import export_artifact
from multitask_export.repository import (
    SAMPLES,
    write_config,
    write_repository,
    write_version,
)
from multitask_export.variants import TARGETS, VARIANTS
from multitask_train import demo_corpus
from multitask_train.data.features import collect_schema
from multitask_train.data.readers import example_from_record
from multitask_train.settings import FitSettings

GOLDEN = Path(__file__).parents[2] / "triton_models"


def parsed(path: Path) -> pb.ModelConfig:
    return text_format.Parse(path.read_text(), pb.ModelConfig())


@pytest.fixture(scope="module")
def demo_schema() -> LabelSchema:
    return collect_schema(example_from_record(one) for one in demo_corpus.build()["train"])


def demo(schema: LabelSchema, target: str) -> Served:
    """What the demo's model serves; only the weights' hash is not its own."""
    variant = VARIANTS[TARGETS[target][0]]
    window = load(FitSettings, GOLDEN.parent / "train" / "configs" / "demo.yaml").model.max_length
    return Served(
        target, schema, variant.name, variant.layout, variant.file, "0" * 64, window, Serving()
    )


@pytest.mark.parametrize("target", TARGETS)
def test_committed_configs_are_those_of_the_demo(target: str, demo_schema: LabelSchema) -> None:
    served = demo(demo_schema, target)
    for config in (text_config(served), tensor_config(served)):
        golden = GOLDEN / config.name / "configs" / f"{target}.pbtxt"
        if config.name == signature.TENSOR_MODEL and target == "tensorrt":
            golden = Path(__file__).parent / "golden" / "tensorrt.pbtxt"
        assert parsed(golden) == config
        assert text_format.Parse(config_text(config), pb.ModelConfig()) == config
        if target == "cpu":
            assert parsed(GOLDEN / config.name / "config.pbtxt") == config


def test_threads_are_those_of_the_encoder_on_a_cpu(demo_schema: LabelSchema) -> None:
    given = {
        target: tensor_config(replace(demo(demo_schema, target), serving=Serving(threads=3)))
        for target in TARGETS
    }
    values = {target: config.parameters for target, config in given.items()}
    assert values["embedded"]["threads"].string_value == "3"
    assert values["cpu"]["intra_op_thread_count"].string_value == "3"
    assert not {"intra_op_thread_count", "threads"} & {*values["cuda"], *values["tensorrt"]}


def test_the_targets_differ_where_they_must(demo_schema: LabelSchema) -> None:
    configs = {target: tensor_config(demo(demo_schema, target)) for target in TARGETS}
    assert {target: config.backend for target, config in configs.items()} == {
        "embedded": "python",
        "cpu": "onnxruntime",
        "cuda": "onnxruntime",
        "tensorrt": "onnxruntime",
    }
    assert configs["cpu"].input[0].allow_ragged_batch
    assert [one.kind for one in configs["cpu"].batch_input] == [
        pb.BatchInput.BATCH_ITEM_SHAPE,
        pb.BatchInput.BATCH_MAX_ELEMENT_COUNT_AS_SHAPE,
    ]
    assert configs["cuda"].instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    (accelerator,) = configs[
        "tensorrt"
    ].optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["trt_profile_max_shapes"].startswith("input_ids:64x")
    assert accelerator.parameters["trt_engine_cache_prefix"] == "0" * 12
    encoders = {
        target: text_config(demo(demo_schema, target)).parameters["encoder"].string_value
        for target in TARGETS
    }
    assert set(encoders.values()) == {"in-process", "bls"}


def test_overload_and_old_requests_are_refused(demo_schema: LabelSchema) -> None:
    policy = text_config(demo(demo_schema, "cpu")).dynamic_batching.default_queue_policy
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.max_queue_size > 0
    assert policy.default_timeout_microseconds > 0


def test_the_container_is_the_dockerfiles() -> None:
    text = (GOLDEN.parent / "Dockerfile.triton").read_text()
    assert f"ARG TRITON_TAG={CONTAINER}-" in text


@pytest.mark.parametrize("target", TARGETS)
def test_the_tensor_config_fits_the_graph(tiny_repository: Path, target: str) -> None:
    """Config inputs and batch inputs together are the graph's; dims leave the batch out."""
    folder = tiny_repository / signature.TENSOR_MODEL
    config = parsed(folder / "configs" / f"{target}.pbtxt")
    if target == "embedded":
        config = parsed(folder / "config.pbtxt")
    graph = folder / "1" / config.default_model_filename
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    types = {"tensor(int64)": pb.TYPE_INT64, "tensor(float)": pb.TYPE_FP32}
    given = {one.name: one.data_type for one in config.input}
    given.update({one.target_name[0]: one.data_type for one in config.batch_input})
    assert given == {node.name: types[node.type] for node in session.get_inputs()}
    ends = {node.name: (types[node.type], node.shape[-1]) for node in session.get_outputs()}
    assert ends == {one.name: (one.data_type, one.dims[-1]) for one in config.output}


def test_warm_up_data_is_there_and_inside_the_vocabulary(
    tiny_artifact: Path, tiny_repository: Path
) -> None:
    encoder = Artifact.open(tiny_artifact).text_encoder()
    folder = tiny_repository / signature.TENSOR_MODEL
    for target in TARGETS:
        config = parsed(folder / "configs" / f"{target}.pbtxt")
        lengths = []
        for sample in config.model_warmup:
            for name, value in sample.inputs.items():
                data = (folder / "warmup" / value.input_data_file).read_bytes()
                numbers = np.frombuffer(data, np.int64)
                assert len(numbers) == value.dims[0]
                if name == signature.INPUT_IDS:
                    assert 0 <= numbers.min() <= numbers.max() < encoder.vocabulary_size
                    lengths.append(len(numbers))
        assert sorted(set(lengths)) == [16, 32]
    text = tiny_repository / signature.TEXT_MODEL / "warmup" / "text_32"
    size = int.from_bytes(text.read_bytes()[:4], "little")
    (encoded,) = encoder([text.read_bytes()[4:].decode()])
    assert size == len(text.read_bytes()) - 4
    assert 16 < len(encoder.input_ids(encoded, encoded.windows[0])) <= 32


def test_a_target_without_a_graph_gets_no_config(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    write_repository(tiny_artifact, tmp_path / "repository")
    stale = tmp_path / "repository" / signature.TEXT_MODEL / "configs" / "tensorrt.pbtxt"
    assert stale.is_file()
    plain = export_artifact(tiny_checkpoint, tmp_path / "plain", variants=["fp32-fused"])
    record = json.loads((plain / "manifest.json").read_text())
    assert record["config"]["targets"] == {
        "embedded": "fp32-fused",
        "cpu": "fp32-fused",
        "cuda": "fp32-fused",
    }
    write_repository(plain, tmp_path / "repository")
    assert not stale.exists()
    assert (tmp_path / "repository" / signature.TEXT_MODEL / "configs" / "cuda.pbtxt").is_file()


def test_version_folders_are_whole(tiny_artifact: Path, tiny_repository: Path) -> None:
    text = tiny_repository / signature.TEXT_MODEL / "1"
    assert sorted(path.name for path in text.iterdir()) == [
        "labels.json",
        "manifest.json",
        "model.py",
        "model_packed.onnx",
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
        assert folders == ["1", "2", "configs", "warmup"]


def test_configs_name_the_version_that_is_served(tiny_artifact: Path, tmp_path: Path) -> None:
    """A newer folder beside it is not served, whenever the server starts."""
    write_repository(tiny_artifact, tmp_path, version=1)
    write_version(Artifact.open(tiny_artifact), tmp_path, 2)
    for path in tmp_path.rglob("*.pbtxt"):
        policy = parsed(path).version_policy
        assert policy.WhichOneof("policy_choice") == "specific"
        assert list(policy.specific.versions) == [1]


def test_a_config_that_says_so_already_is_left_alone(tiny_artifact: Path, tmp_path: Path) -> None:
    """Triton loads a model anew whose config is newer."""
    write_repository(tiny_artifact, tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.pbtxt")}
    exported = Artifact.open(tiny_artifact)
    for target in TARGETS:
        write_config(exported, tmp_path, signature.TEXT_MODEL, target, [1])
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*.pbtxt")} == before
    write_config(exported, tmp_path, signature.TENSOR_MODEL, "cpu", [1, 2])
    changed = {path for path in before if path.stat().st_ino != before[path]}
    folder = tmp_path / signature.TENSOR_MODEL
    assert changed == {folder / "config.pbtxt", folder / "configs" / "cpu.pbtxt"}


def test_an_artifact_carries_sentences_to_compare_versions_on(
    tiny_artifact: Path, tiny_checkpoint: Path
) -> None:
    assert SAMPLES in Artifact.open(tiny_artifact).manifest.files
    assert (tiny_artifact / SAMPLES).read_bytes() == (tiny_checkpoint / SAMPLES).read_bytes()


def test_a_damaged_artifact_is_not_published(tiny_artifact: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_artifact, copy)
    (copy / "model_packed.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="model_packed"):
        write_repository(copy, tmp_path / "repository")
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["publish.lock"]
