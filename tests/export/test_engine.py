"""The engine command against stand-ins for trtexec and nvidia-smi.

The stand-in for trtexec takes the options of the real one and refuses others, records its calls and
writes files in the real one's formats; it "runs" a plan with ONNX Runtime.
"""

import argparse
import json
import logging
import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import manifest
from multitask_core.artifact import KIND, LABELS, TOKENIZER, Artifact
from multitask_core.batching import MAX_ROWS
from multitask_core.errors import ArtifactError, ConfigError, ParityError
from multitask_core.signature import CLASS_LOGITS, TENSOR_MODEL, TEXT_MODEL, TOKEN_LOGITS
from multitask_export import engine
from multitask_export.engine import agreement, layers, machine, source
from multitask_export.engine.agreement import Answer, Batch

FAKE_TRTEXEC = """
import json, os, pathlib, re, sys, time
import numpy as np

here = pathlib.Path(__file__).parent
wish = json.loads((here / "wish.json").read_text())
arguments = sys.argv[1:]
with (here / "calls.jsonl").open("a") as stream:
    stream.write(json.dumps(arguments) + "\\n")
major = wish["version"] // 10000
name = f"TensorRT.trtexec [TensorRT v{wish['version']}] [b9] # trtexec " + " ".join(arguments)
print("&&&& RUNNING", name)
if arguments == ["--help"]:
    print("=== Model Options ===\\n  --onnx=<file>               ONNX model")
    sys.exit(0)

def fail(*lines):
    for line in lines:
        print("[11/23/2026-10:00:02] [E]", line)
    print("&&&& FAILED", name)
    sys.exit(1)

known = {"onnx", "saveEngine", "minShapes", "optShapes", "maxShapes", "builderOptimizationLevel",
    "timingCacheFile", "profilingVerbosity", "exportLayerInfo", "skipInference", "loadEngine",
    "shapes", "loadInputs", "exportOutput", "warmUp", "duration", "iterations"}
known |= {"stronglyTyped"} if major < 11 else set()
options = dict(one.removeprefix("--").partition("=")[::2] for one in arguments)
if unknown := options.keys() - known:
    fail(*(f"Unknown option: --{one}" for one in unknown))
print("[11/23/2026-10:00:00] [I] TensorRT version: 10.13.3")

def tensor(kind, name="x"):
    long = {"Half": "Row major linear FP16 format", "Float": "Row major linear FP32 format"}
    if major >= 11:
        return {"Name": name, "Dimensions": [8, 64], "Format": "kLINEAR", "DataType": kind}
    known_shape = "loadEngine" in options
    text = (long.get(kind, kind) if known_shape else "N/A due to dynamic shapes")
    return {"Name": name, "Location": "Device", "Dimensions": [-1, 64], "Format/Datatype": text}

def layer(name, kind, inputs, output, tactic, nodes):
    return {"Name": name, "LayerType": kind, "Inputs": [tensor(one) for one in inputs],
        "Outputs": [tensor(output)], "TacticName": tactic, "StreamId": 0,
        "Metadata": "\\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)}

if "exportLayerInfo" in options:
    gemm = wish.get("gemm", "Half")
    found = [
        layer("__myl_CastGather_myl0_0", "kgen", ["Int64", "Float"], "Half", "__myl_Cast_0x1",
            ["/encoder/embeddings/Gather"]),
        layer("/encoder/layer_0/query/MatMul_myl0_1", "gemm", [gemm], gemm, wish.get("tactic", ""),
            ["/encoder/layer.0/query/MatMul", "/encoder/layer.0/query/Add"]),
        layer("_gemm_mha_v2_myl0_2", "kgen", ["Half", "Half", "Half"], "Half",
            "_gemm_mha_v2_0x957a", ["/encoder/layer.0/MatMul", "/encoder/layer.0/Softmax"]),
        layer("/head/MatMul_myl0_3", "gemm", ["Half"], "Float",
            "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64",
            ["/head/MatMul", "/head/Cast"]),
    ]
    ends = ({"I/O Tensors": [{"Name": "input_ids", "IOMode": "Input", "DataType": "Int64"}]}
        if major >= 11 else {"Bindings": ["input_ids"]})
    # TensorRT writes the control characters between names raw, which is no JSON.
    text = json.dumps({"Layers": found, **ends}).replace("\\\\u001f", "\\x1f")
    pathlib.Path(options["exportLayerInfo"]).write_text(text)

if "onnx" in options:
    if "build" in wish:
        fail(*wish["build"])
    pathlib.Path(options["saveEngine"]).write_text(options["onnx"])
    if "timingCacheFile" in options:
        pathlib.Path(options["timingCacheFile"]).write_bytes(b"timings")
else:
    import onnxruntime
    shapes = {part.split(":")[0]: [int(size) for size in part.split(":")[1].split("x")]
        for part in options["shapes"].split(",")}
    feeds = {}
    for part in options["loadInputs"].split(","):
        tensor_name, path = part.split(":")
        feeds[tensor_name] = np.fromfile(path, np.int64).reshape(shapes[tensor_name])
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    quiet.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        pathlib.Path(options["loadEngine"]).read_text(), quiet, providers=["CPUExecutionProvider"])
    parts = []
    for node, values in zip(session.get_outputs(), session.run(None, feeds)):
        values = values + wish.get("shift", 0.0)
        dimensions = "x".join(map(str, values.shape))
        numbers = ", ".join(f"{value:g}" for value in values.ravel())
        parts.append(f'{{ "name" : "{node.name}"\\n  , "dimensions" : "{dimensions}"\\n'
            f'  , "values" : [ {numbers} ]\\n  }}\\n')
    pathlib.Path(options["exportOutput"]).write_text("[\\n  " + ", ".join(parts) + "]\\n")
print("&&&& PASSED", name)
"""

FAKE_SMI = """
import json, pathlib, sys
wish = json.loads((pathlib.Path(__file__).parent / "wish.json").read_text())
assert sys.argv[1:] == ["--query-gpu=name,compute_cap", "--format=csv,noheader"]
print(wish["gpu"])
"""

H100 = "NVIDIA H100 80GB HBM3, 9.0"
L4 = "NVIDIA L4, 8.9"


class Machine:
    """A folder with both programs; `wish` tells them what to be and how to fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in (("trtexec", FAKE_TRTEXEC), ("nvidia-smi", FAKE_SMI)):
            path = folder / name
            path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
            path.chmod(0o755)
        self.wish()

    def wish(self, version: int = 101303, gpu: str = H100, **more: object) -> None:
        (self.folder / "wish.json").write_text(json.dumps({"version": version, "gpu": gpu, **more}))
        (self.folder / "calls.jsonl").write_text("")

    def calls(self) -> list[list[str]]:
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def gpu_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(machine.folder), prepend=os.pathsep)
    return machine


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    return convert_float_to_float16(model, keep_io_types=True, op_block_list=[])


def write_artifact(
    tiny_artifact: Path,
    folder: Path,
    graph: onnx.ModelProto | None,
    kept: list[str] | None = None,
) -> Path:
    folder.mkdir()
    for name in (LABELS, TOKENIZER, "model.onnx"):
        shutil.copy2(tiny_artifact / name, folder)
    graphs = {"fp32": "model.onnx"}
    if graph is not None:
        graphs["fp16"] = "model_fp16.onnx"
        onnx.save(graph, folder / graphs["fp16"])
    manifest.write(
        folder,
        KIND,
        files=[path for path in folder.iterdir() if path.is_file()],
        config={
            "graphs": graphs,
            "targets": {"tensorrt": "fp16"},
            "layouts": dict.fromkeys(graphs, "padded"),
            "default": "fp32",
            "windowing": Artifact.open(tiny_artifact).manifest.config["windowing"],
        },
        report={} if kept is None else {"fp16": {"kept_in_fp32": kept}},
    )
    return folder


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = half(onnx.load(tiny_artifact / "model.onnx"))
    return write_artifact(tiny_artifact, tmp_path_factory.mktemp("fp16") / "tiny", graph)


def publish(artifact: Path, repository: Path, version: int = 1) -> Path:
    """What an export leaves in a repository, as far as the engine asks for it."""
    folder = repository / TENSOR_MODEL / str(version)
    folder.mkdir(parents=True)
    for path in artifact.iterdir():
        shutil.copy2(path, folder)
    configs = repository / TEXT_MODEL / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    (configs / "tensorrt.pbtxt").write_text('name: "multitask"\nbackend: "python"\n')
    return repository


@pytest.fixture
def repository(artifact: Path, tmp_path: Path) -> Path:
    return publish(artifact, tmp_path / "models")


def run(artifact: Path, repository: Path, *more: str) -> int:
    parser = argparse.ArgumentParser()
    engine.add_arguments(parser)
    arguments = ["--artifact", str(artifact), "--repository", str(repository)]
    return engine.run(parser.parse_args([*arguments, "--opt-length", "16", *more]))


def plan_config(repository: Path) -> pb.ModelConfig:
    text = (repository / TENSOR_MODEL / "configs" / "tensorrt-plan.pbtxt").read_text()
    return text_format.Parse(text, pb.ModelConfig())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- the whole way --------------------------------------------------------------------------------


def test_a_plan_is_built_proven_and_published(
    artifact: Path, repository: Path, gpu_machine: Machine, tmp_path: Path
) -> None:
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("play some jazz in Paris\n\nwake me at seven\nno\n" * 5)
    cache = tmp_path / "caches" / "timings"
    assert run(artifact, repository, "--data", str(sentences), "--timing-cache", str(cache)) == 0

    folder = repository / TENSOR_MODEL / "1"
    plan = folder / "model_sm90.plan"
    assert plan.read_text() == str(artifact / "model_fp16.onnx")
    assert cache.read_bytes() == b"timings"
    assert "&&&& PASSED" in (folder / "model_sm90.log").read_text()
    assert Artifact.open(folder).graph("fp16").is_file(), "the version folder is still whole"

    record = json.loads((folder / "engine.json").read_text())["engines"]["9.0"]
    assert record["tensorrt"] == "10.13.3"
    assert record["gpu"] == "NVIDIA H100 80GB HBM3"
    assert record["sha256"] == manifest.sha256(plan)
    assert record["graph_sha256"] == manifest.sha256(artifact / "model_fp16.onnx")
    assert record["shapes"] == {"opt": "8x16", "max": "64x32"}
    assert "--saveEngine=model_sm90.plan" in record["command"]
    assert record["precision"] == {"half": 3, "kept_in_fp32": [], "unknown": []}
    assert 0 < record["parity"]["token_difference"] <= agreement.TOLERANCE
    assert record["parity"]["rows"] >= 15

    config = plan_config(repository)
    assert (config.backend, config.max_batch_size) == ("tensorrt", MAX_ROWS)
    assert dict(config.cc_model_filenames) == {"9.0": "model_sm90.plan"}
    assert config.default_model_filename == ""
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert config.HasField("dynamic_batching")
    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [
        ("input_ids", pb.TYPE_INT64, [-1]),
        ("attention_mask", pb.TYPE_INT64, [-1]),
    ]
    tags = len(Artifact.open(artifact).schema.tags)
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [
        (CLASS_LOGITS, pb.TYPE_FP32, [3]),
        (TOKEN_LOGITS, pb.TYPE_FP32, [-1, tags]),
    ]
    texts = repository / TEXT_MODEL / "configs"
    assert (texts / "tensorrt-plan.pbtxt").read_text() == (texts / "tensorrt.pbtxt").read_text()


def test_the_commands_are_trtexecs(artifact: Path, repository: Path, gpu_machine: Machine) -> None:
    run(artifact, repository, "--builder-level", "5")
    help_call, build, *runs = gpu_machine.calls()
    assert help_call == ["--help"]
    assert "--stronglyTyped" in build
    assert "--minShapes=input_ids:1x1,attention_mask:1x1" in build
    assert "--optShapes=input_ids:8x16,attention_mask:8x16" in build
    assert "--maxShapes=input_ids:64x32,attention_mask:64x32" in build
    assert {"--builderOptimizationLevel=5", "--profilingVerbosity=detailed"} <= set(build)
    shapes = [next(one for one in call if one.startswith("--shapes=")) for call in runs]
    assert len(set(shapes)) >= 4, "batches of different shapes"
    assert any("x32," in shape for shape in shapes), "a full window"
    assert sum("--exportLayerInfo" in " ".join(call) for call in runs) == 1


def test_tensorrt_11_takes_no_flag_and_writes_other_keys(
    artifact: Path, repository: Path, gpu_machine: Machine
) -> None:
    gpu_machine.wish(version=110100)
    run(artifact, repository)
    assert "--stronglyTyped" not in gpu_machine.calls()[1]
    record = json.loads((repository / TENSOR_MODEL / "1" / "engine.json").read_text())
    assert record["engines"]["9.0"]["tensorrt"] == "11.1.0"
    assert record["engines"]["9.0"]["precision"]["half"] == 3


def test_a_second_gpu_joins_the_first(
    artifact: Path, repository: Path, gpu_machine: Machine
) -> None:
    run(artifact, repository)
    gpu_machine.wish(gpu=L4)
    run(artifact, repository)
    folder = repository / TENSOR_MODEL / "1"
    assert {"model_sm89.plan", "model_sm90.plan"} <= files(folder)
    assert list(json.loads((folder / "engine.json").read_text())["engines"]) == ["8.9", "9.0"]
    plans = {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
    assert dict(plan_config(repository).cc_model_filenames) == plans


def test_a_dry_run_needs_nothing(
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(artifact, tmp_path / "nowhere", "--dry-run") == 0
    build, one_run = (shlex.split(line) for line in capsys.readouterr().out.splitlines())
    assert build[:2] == [machine.TRTEXEC, f"--onnx={artifact / 'model_fp16.onnx'}"]
    assert f"--loadEngine={tmp_path}/nowhere/{TENSOR_MODEL}/1/model_smXX.plan" in one_run
    assert not (tmp_path / "nowhere").exists()


def test_the_config_keeps_what_the_tensorrt_target_set(
    artifact: Path, repository: Path, gpu_machine: Machine
) -> None:
    base = pb.ModelConfig(
        name=TENSOR_MODEL, backend="onnxruntime", default_model_filename="model_fp16.onnx"
    )
    base.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    base.dynamic_batching.default_queue_policy.max_queue_size = 7
    base.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=3)
    base.model_warmup.add(name="8 pieces", batch_size=1)
    path = repository / TENSOR_MODEL / "configs" / "tensorrt.pbtxt"
    path.parent.mkdir()
    path.write_text(text_format.MessageToString(base))
    run(artifact, repository)
    config = plan_config(repository)
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 7
    assert [one.name for one in config.model_warmup] == ["8 pieces"]
    assert (config.backend, config.default_model_filename) == ("tensorrt", "")
    assert not config.HasField("optimization")
    assert [one.count for one in config.instance_group] == [1]
    assert [len(config.input), len(config.output)] == [2, 2]
    assert text_format.Parse(path.read_text(), pb.ModelConfig()) == base


# --- what is refused before a build ---------------------------------------------------------------


def test_a_contrib_operator_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    graph = half(onnx.load(tiny_artifact / "model.onnx"))
    inner = helper.make_graph(
        [helper.make_node("BiasGelu", ["a", "a"], ["b"], domain="com.microsoft")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT16, None)],
    )
    graph.graph.node.append(
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    )
    folder = write_artifact(tiny_artifact, tmp_path / "contrib", graph)
    with pytest.raises(ArtifactError, match=r"com\.microsoft\.BiasGelu.*standard"):
        run(folder, tmp_path / "models", "--dry-run")


def test_an_artifact_without_the_variant_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    folder = write_artifact(tiny_artifact, tmp_path / "fp32", None)
    with pytest.raises(ArtifactError, match="no variant 'fp16'"):
        run(folder, tmp_path, "--dry-run")


def test_a_graph_with_other_types_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    graph = convert_float_to_float16(onnx.load(tiny_artifact / "model.onnx"), op_block_list=[])
    folder = write_artifact(tiny_artifact, tmp_path / "types", graph)
    with pytest.raises(ArtifactError, match="class_logits FLOAT16"):
        run(folder, tmp_path, "--dry-run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--opt-length", "33"], "--opt-length is 33.*1 to 32"),
        (["--opt-batch", "65"], "--opt-batch is 65.*1 to 64"),
        (["--opt-batch", "0"], "--opt-batch is 0"),
        (["--max-batch", "8"], "--max-batch is 8.*64 rows"),
        (["--builder-level", "6"], "--builder-level is 6.*0 to 5"),
    ],
)
def test_options_out_of_range_are_refused(
    artifact: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(artifact, tmp_path, "--dry-run", *options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "good"}\n{"label": "x"}\n', "a.jsonl:2: no JSON object with 'text'"),
        ("a.jsonl", '{"text": 3}\n', "a.jsonl:1: a text must be str"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: no JSON"),
        ("a.txt", "\n \n", "holds no sentences"),
        ("a.txt", b"\xff\xfe", "cannot read"),
    ],
)
def test_broken_sentences_are_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        agreement.read_texts(path)


def test_sentences_come_from_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"text": "one\\u2028two"}\n\n{"text": "three"}\n')
    assert agreement.read_texts(path) == ["one\u2028two", "three"]


def test_a_version_that_is_not_there_is_refused(
    artifact: Path, repository: Path, gpu_machine: Machine
) -> None:
    with pytest.raises(ArtifactError, match="2 holds no manifest.json"):
        run(artifact, repository, "--version", "2")
    assert gpu_machine.calls() == []


def test_a_version_of_another_artifact_is_refused(
    tiny_artifact: Path, artifact: Path, tmp_path: Path
) -> None:
    repository = publish(tiny_artifact, tmp_path / "models")
    with pytest.raises(ArtifactError, match="another artifact"):
        run(artifact, repository)


def test_the_plan_is_of_the_version_that_is_served(
    artifact: Path, tiny_artifact: Path, tmp_path: Path, gpu_machine: Machine
) -> None:
    repository = publish(tiny_artifact, tmp_path / "models")
    publish(artifact, repository, 2)
    config = repository / TEXT_MODEL / "configs" / "tensorrt.pbtxt"
    config.write_text("version_policy { specific { versions: 2 } }")
    assert run(artifact, repository) == 0
    assert (repository / TENSOR_MODEL / "2" / "model_sm90.plan").is_file()
    config.write_text("version_policy { specific { versions: 1 } }")
    with pytest.raises(ConfigError, match=r"would serve version 1, .* rollback --to 2"):
        run(artifact, repository, "--version", "2")


def test_a_repository_without_the_tensorrt_target_is_refused(
    artifact: Path, repository: Path
) -> None:
    config = repository / TEXT_MODEL / "configs" / "tensorrt.pbtxt"
    config.write_text('parameters { key: "layout" value { string_value: "packed" } }')
    with pytest.raises(ArtifactError, match="packed rows"):
        run(artifact, repository)
    config.unlink()
    with pytest.raises(ArtifactError, match="tensorrt.pbtxt is missing: export"):
        run(artifact, repository)


@pytest.mark.parametrize("name", ["engine.json", "../configs/tensorrt-plan.pbtxt"])
def test_damaged_files_of_an_earlier_run_are_named(
    artifact: Path, repository: Path, name: str
) -> None:
    path = repository / TENSOR_MODEL / "1" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=path.name):
        run(artifact, repository)


def test_a_read_only_repository_is_refused(
    artifact: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written; mount the repository writable"):
        run(artifact, repository)


# --- the machine ----------------------------------------------------------------------------------


def test_missing_programs_are_named_with_the_docker_command(
    artifact: Path, repository: Path, gpu_machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(gpu_machine.folder))
    monkeypatch.setattr(machine, "TRTEXEC", "/nowhere/trtexec")
    (gpu_machine.folder / "nvidia-smi").unlink()
    with pytest.raises(ConfigError, match="no nvidia-smi.*docker run --rm --gpus"):
        run(artifact, repository)
    (gpu_machine.folder / "trtexec").unlink()
    with pytest.raises(ConfigError, match="trtexec on PATH or at /nowhere/trtexec.*docker run"):
        run(artifact, repository)
    with pytest.raises(ConfigError, match="there is no program /opt/trtexec;"):
        run(artifact, repository, "--trtexec", "/opt/trtexec")


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec --help", "10.13.3"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106]", "11.1.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v11.1.0.106] [b48]", "11.1.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec", None),
        ("usage: something else", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_the_banner(
    tmp_path: Path, banner: str, version: str | None
) -> None:
    program = tmp_path / "trtexec"
    program.write_text(f"#!/bin/sh\necho '{banner}'\n")
    program.chmod(0o755)
    if version:
        assert str(machine.tensorrt_version(program)) == version
    else:
        with pytest.raises(ConfigError, match="TensorRT 8.6.1|no trtexec"):
            machine.tensorrt_version(program)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 9", "fails: no output"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "fails: NVIDIA-SMI has failed"),
        ("echo 'No devices were found'", "names no GPU"),
        ("echo 'Old card, [N/A]'", "names no GPU"),
        (f"echo '{H100}'; echo '{L4}'", "several kinds of GPU.*--gpus device=N"),
        (f"echo '{H100}'; echo '{H100}'", ""),
    ],
)
def test_the_gpu_is_asked_for(gpu_machine: Machine, script: str, message: str) -> None:
    (gpu_machine.folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    if message:
        with pytest.raises(ConfigError, match=message):
            machine.find_gpu()
    else:
        gpu = machine.find_gpu()
        assert gpu == ("NVIDIA H100 80GB HBM3", "9.0")
        assert gpu.plan_name == "model_sm90.plan"


# --- what a build can do wrong --------------------------------------------------------------------


def test_a_failed_build_shows_its_errors_and_leaves_the_repository(
    artifact: Path, repository: Path, gpu_machine: Machine
) -> None:
    before = files(repository / TENSOR_MODEL / "1")
    gpu_machine.wish(build=[f"error {number}" for number in range(9)])
    with pytest.raises(ArtifactError) as caught:
        run(artifact, repository)
    message = str(caught.value)
    assert "exit status 1" in message
    assert "error 3" not in message
    assert "[E] error 8" in message
    assert "TensorRT version" not in message
    assert files(repository / TENSOR_MODEL / "1") - before == {"model_sm90.log"}
    assert not (repository / TENSOR_MODEL / "configs").exists()


def test_a_crash_without_errors_shows_the_last_lines(
    artifact: Path, repository: Path, gpu_machine: Machine
) -> None:
    program = gpu_machine.folder / "trtexec"
    program.write_text(
        "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v101303]'\n"
        '[ "$1" = --help ] || { echo Segmentation fault; exit 139; }\n'
    )
    with pytest.raises(ArtifactError, match="exit status 139.*\n.*\n  Segmentation fault"):
        run(artifact, repository)


def test_a_float_product_is_refused(artifact: Path, repository: Path, gpu_machine: Machine) -> None:
    gpu_machine.wish(gemm="Float")
    with pytest.raises(ParityError, match=r"1 products run in FP32: /encoder/layer_0/query/MatMul"):
        run(artifact, repository)
    assert not (repository / TENSOR_MODEL / "1" / "model_sm90.plan").exists()


def test_a_float_product_that_the_export_kept_is_allowed(
    tiny_artifact: Path, tmp_path: Path, gpu_machine: Machine
) -> None:
    graph = half(onnx.load(tiny_artifact / "model.onnx"))
    kept = ["/encoder/layer.0/query/MatMul"]
    folder = write_artifact(tiny_artifact, tmp_path / "kept", graph, kept)
    repository = publish(folder, tmp_path / "models")
    gpu_machine.wish(gemm="Float")
    run(folder, repository)
    record = json.loads((repository / TENSOR_MODEL / "1" / "engine.json").read_text())
    assert record["engines"]["9.0"]["precision"] == {
        "half": 2,
        "kept_in_fp32": ["/encoder/layer_0/query/MatMul_myl0_1"],
        "unknown": [],
    }


@pytest.mark.parametrize(
    ("shift", "message"),
    [(0.5, "logits differ by up to 5.0.e-01.*allowed are 1e-01"), (float("nan"), "not finite")],
)
def test_a_plan_that_answers_otherwise_is_refused(
    artifact: Path, repository: Path, gpu_machine: Machine, shift: float, message: str
) -> None:
    gpu_machine.wish(shift=shift)
    with pytest.raises(ParityError, match=message):
        run(artifact, repository)
    assert not (repository / TENSOR_MODEL / "1" / "model_sm90.plan").exists()


# --- layers, by themselves ------------------------------------------------------------------------


def layer(kind: str, name: str = "product", **more: object) -> dict[str, object]:
    return {"Name": name, "LayerType": kind, **more}


def typed(*kinds: str, key: str = "Format/Datatype") -> dict[str, object]:
    return {"Inputs": [{"Name": "x", key: kind} for kind in kinds]}


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (layer("gemm", **typed("Half")), "half"),
        (layer("gemm", **typed("Float")), "wrong"),
        (layer("gemm", **typed("BFloat16")), "unknown"),
        (layer("gemm", **typed("Half", "Float")), "half"),
        (layer("MatrixMultiply", **typed("Row major linear FP32 format")), "wrong"),
        (layer("CaskGemmMatrixMultiply", **typed("Float", key="DataType")), "wrong"),
        (layer("gemm", **typed("Float", key="Datatype")), "wrong"),
        (layer("gemm", **typed("N/A due to dynamic shapes")), "unknown"),
        (
            layer("gemm", TacticName="sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x64x16"),
            "wrong",
        ),
        (layer("gemm", TacticName="sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64"), "half"),
        (layer("gemm", TacticName="ampere_h16816gemm_128x64_ldg8_stages_32x6_nn_v1"), "half"),
        (layer("gemm", TacticName="ampere_sgemm_32x128_tn"), "wrong"),
        (layer("gemm", Weights={"Type": "Half", "Count": 9}), "half"),
        (layer("kgen", "_gemm_mha_v2_myl0_4", **typed("Float")), "wrong"),
        (layer("kgen", "fused", TacticName="_gemv_mha_v1_0x1", **typed("Half")), "half"),
        (layer("kgen", "__myl_FcMul_myl0_4", **typed("Half")), "half"),
        (layer("kgen", "__myl_CastMulAdd_myl0_4", **typed("Float")), "no product"),
        (layer("kgen", "/layer.0/attention/MatMul_myl0_4", **typed("Float")), "no product"),
        (layer("Reformat", "Reformatting CopyNode for gemm", **typed("Float")), "no product"),
        (layer("Myelin", "{ForeignNode[/a.../b]}", **typed("Int64", "Float")), "unknown"),
    ],
)
def test_the_precision_of_a_layer(one: dict[str, object], verdict: str) -> None:
    if verdict == "wrong":
        with pytest.raises(ParityError, match="run in FP32"):
            layers.check_precision([one], ())
        return
    found = layers.check_precision([one], ())
    assert (found.half, len(found.unknown)) == (verdict == "half", verdict == "unknown")


def test_kept_nodes_are_known_by_metadata_and_by_name() -> None:
    wrong = typed("Float")
    kept = ["/layer.0/MatMul"]
    by_name = layer("gemm", "/layer_0/MatMul_myl0_3", **wrong)
    by_metadata = layer("gemm", "x", Metadata="[ONNX Layer: /layer.0/MatMul]", **wrong)
    assert len(layers.check_precision([by_name, by_metadata], kept).kept_in_fp32) == 2
    other = layer("gemm", "/layer_0/MatMul_3", Metadata="[ONNX Layer: /layer.9/MatMul]", **wrong)
    with pytest.raises(ParityError, match="left /layer.0/MatMul in FP32"):
        layers.check_precision([other], kept)


def test_layer_information_without_detail_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names, broken = tmp_path / "names.json", tmp_path / "broken.json"
    names.write_text('{"Layers": ["a", "b"]}')
    broken.write_text("")
    found = layers.read_layers(tmp_path / "missing.json", broken, names)
    assert found == []
    with caplog.at_level(logging.WARNING):
        layers.check_precision(found, ())
    assert "of 0 products" in caplog.text


# --- answers, by themselves -----------------------------------------------------------------------

BATCH = Batch(np.array([[2, 5, 3], [2, 3, 0]]), np.array([[1, 1, 1], [1, 1, 0]]))


def answer(class_logits: list[list[float]], token: float = 0.0) -> Answer:
    tokens = np.tile(np.array([1.0, token], np.float32), (2, 3, 1))
    return Answer(np.array(class_logits, np.float32), tokens)


def test_what_answers_padding_is_not_compared() -> None:
    wanted, found = answer([[1, 0], [0, 1]]), answer([[1, 0], [0, 1]])
    found.token_logits[1, 2] = np.nan
    measured = agreement.check_agreement([BATCH], [wanted], [found])
    assert (measured.token_difference, measured.rows, measured.shapes) == (0.0, 2, ("2x3",))


def test_a_tie_may_fall_either_way_and_nothing_else() -> None:
    wanted = answer([[0.001, 0.0], [0.0, 1.0]])
    near = answer([[0.0, 0.002], [0.01, 1.0]])
    measured = agreement.check_agreement([BATCH], [wanted], [near])
    assert (measured.labels_changed, measured.tags_changed) == (1, 0)
    far = answer([[0.0, 0.0005], [0.0, 1.0]])
    with pytest.raises(ParityError, match="label that is no tie: by a margin of 1.00e-03"):
        agreement.check_agreement([BATCH], [wanted], [far])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ParityError, match=r"class_logits of a 2x3 batch: the plan gives \(2, 3\)"):
        agreement.check_agreement(
            [BATCH], [answer([[1, 0], [0, 1]])], [answer([[1, 0, 0], [0, 1, 0]])]
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '[{"name": "class_logits", "dimensions": "2x2", "values": [1]}]',
        '[{"name": "class_logits"}]',
    ],
)
def test_outputs_in_another_format_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "0.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="outputs 0.json cannot be read"):
        agreement.read_outputs(path)


def test_one_sentence_is_enough(artifact: Path) -> None:
    encoder = source.open_source(artifact).encoder
    batches = agreement.make_batches(encoder, ["no"], typical=4, largest=64)
    shapes = [batch.shape for batch in batches]
    assert shapes[0].rows == 1
    assert shapes[-1].rows == 4
    assert shapes[-1].pieces > 24, "windows are filled by repeating the texts"


def test_batches_hold_every_row_and_stay_within_the_profile(artifact: Path) -> None:
    encoder = source.open_source(artifact).encoder
    texts = [*agreement.SENTENCES] * 20
    batches = agreement.make_batches(encoder, texts, typical=8, largest=64)
    assert all(batch.shape.rows <= 64 and batch.shape.pieces <= 32 for batch in batches)
    windows = sum(len(encoded.windows) for encoded in encoder(texts))
    assert sum(batch.shape.rows for batch in batches[3:-1]) == windows


def test_the_window_is_the_artifacts(artifact: Path) -> None:
    opened = source.open_source(artifact)
    assert (opened.window, opened.kept_in_fp32) == (32, frozenset())
    assert (opened.graph.name, opened.reference.name) == ("model_fp16.onnx", "model.onnx")
