"""The repository lint: every rule finds its planted fault, and a good repository has none."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import artifact, manifest
from multitask_core.errors import ConfigError
from multitask_core.signature import TENSOR_MODEL, TEXT_MODEL
from multitask_export.lint import Finding, add_arguments, lint, run

WINDOW = 64
CLASSES, TAGS = 3, 7
Edit = Callable[[pb.ModelConfig], object]

PADDED_INPUTS = {
    "input_ids": (TensorProto.INT64, ["batch", "length"]),
    "attention_mask": (TensorProto.INT64, ["batch", "length"]),
}
PADDED_OUTPUTS = {
    "class_logits": (TensorProto.FLOAT, ["batch", CLASSES]),
    "token_logits": (TensorProto.FLOAT, ["batch", "length", TAGS]),
}
PACKED_INPUTS = {
    "input_ids": (TensorProto.INT64, ["tokens"]),
    "lengths": (TensorProto.FLOAT, ["batch", 1]),
    "longest": (TensorProto.FLOAT, ["longest"]),
}
PACKED_OUTPUTS = {
    "class_logits": (TensorProto.FLOAT, ["batch", CLASSES]),
    "token_logits": (TensorProto.FLOAT, ["tokens", TAGS]),
}


# --- hand-made repositories: configs, graphs that only have inputs and outputs, warm-up files -----


def write_graph(path: Path, inputs: Any, outputs: Any, weights: int = TensorProto.FLOAT) -> None:
    def values(table: Any) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, *one) for name, one in table.items()]

    dtype = helper.tensor_dtype_to_np_dtype(weights)
    weight = onnx.numpy_helper.from_array(np.zeros(2, dtype), "weight")
    graph = helper.make_graph([], "graph", values(inputs), values(outputs), [weight])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph), path)


def write_version(folder: Path, inputs: Any, outputs: Any) -> None:
    folder.mkdir(parents=True)
    write_graph(folder / "model.onnx", inputs, outputs)
    for name in (artifact.LABELS, artifact.TOKENIZER):
        (folder / name).write_text("{}")
    windowing = {"max_length": WINDOW, "stride": 8}
    manifest.write(
        folder, artifact.KIND, files=[*folder.iterdir()], config={"windowing": windowing}
    )


def write_config(folder: Path, target: str, config: pb.ModelConfig) -> None:
    path = folder / "config.pbtxt" if target == "config" else folder / f"configs/{target}.pbtxt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_format.MessageToString(config))


def base_config(name: str, kind: int) -> pb.ModelConfig:
    config = pb.ModelConfig(name=name, backend="onnxruntime", max_batch_size=8)
    config.input.add(name="input_ids", data_type=pb.TYPE_INT64, dims=[-1])
    config.output.add(name="class_logits", data_type=pb.TYPE_FP32, dims=[CLASSES])
    config.output.add(name="token_logits", data_type=pb.TYPE_FP32, dims=[-1, TAGS])
    config.instance_group.add(kind=kind, count=1)
    config.dynamic_batching.SetInParent()
    return config


def add_warmup(config: pb.ModelConfig, folder: Path) -> None:
    (folder / "warmup").mkdir(parents=True, exist_ok=True)
    for length in (16, 32, WINDOW):
        (folder / f"warmup/ones_{length}").write_bytes(np.ones(length, np.int64).tobytes())
        sample = config.model_warmup.add(name=f"{length}", batch_size=1)
        for tensor in config.input:
            given = sample.inputs[tensor.name]
            given.data_type = tensor.data_type
            given.dims.append(length)
            given.input_data_file = f"ones_{length}"


def padded_config(name: str, kind: int = pb.ModelInstanceGroup.KIND_CPU) -> pb.ModelConfig:
    config = base_config(name, kind)
    config.input.add(name="attention_mask", data_type=pb.TYPE_INT64, dims=[-1])
    return config


def tensorrt(config: pb.ModelConfig) -> Any:
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    return accelerators[0].parameters


def cuda(config: pb.ModelConfig) -> Any:
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    return accelerators.add(name="cuda").parameters


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """A model `bert` for the targets cpu, cuda and tensorrt, without faults."""
    folder = tmp_path / "padded" / "bert"
    write_version(folder / "1", PADDED_INPUTS, PADDED_OUTPUTS)
    write_config(folder, "config", padded_config("bert"))
    write_config(folder, "cpu", padded_config("bert"))
    on_gpu = padded_config("bert", pb.ModelInstanceGroup.KIND_GPU)
    add_warmup(on_gpu, folder)
    write_config(folder, "cuda", on_gpu)
    accelerators = on_gpu.optimization.execution_accelerators.gpu_execution_accelerator
    parameters = accelerators.add(name="tensorrt").parameters
    for which, shape in (("min", "1x1"), ("opt", "4x32"), ("max", f"8x{WINDOW}")):
        text = f"input_ids:{shape},attention_mask:{shape}"
        parameters[f"trt_profile_{which}_shapes"] = text
    write_config(folder, "tensorrt", on_gpu)
    return folder.parent


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A model `ragged` for the target cuda whose requests of any lengths merge, without faults."""
    folder = tmp_path / "packed" / "ragged"
    write_version(folder / "1", PACKED_INPUTS, PACKED_OUTPUTS)
    config = base_config("ragged", pb.ModelInstanceGroup.KIND_GPU)
    config.input[0].allow_ragged_batch = True
    for kind, target in (
        (pb.BatchInput.BATCH_ITEM_SHAPE, "lengths"),
        (pb.BatchInput.BATCH_MAX_ELEMENT_COUNT_AS_SHAPE, "longest"),
    ):
        config.batch_input.add(
            kind=kind, target_name=[target], data_type=pb.TYPE_FP32, source_input=["input_ids"]
        )
    config.batch_output.add(
        kind=pb.BatchOutput.BATCH_SCATTER_WITH_INPUT_SHAPE,
        target_name=["token_logits"],
        source_input=["input_ids"],
    )
    add_warmup(config, folder)
    write_config(folder, "config", config)
    write_config(folder, "cuda", config)
    return folder.parent


@pytest.fixture
def repository(tiny_repository: Path, tmp_path: Path) -> Path:
    """A copy of what write_repository wrote."""
    return Path(shutil.copytree(tiny_repository, tmp_path / "repository"))


def edit(path: Path, change: Edit) -> None:
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    change(config)
    path.write_text(text_format.MessageToString(config))


def found(repository: Path, rule: str, path: str | None = None) -> list[Finding]:
    return [
        one for one in lint(repository) if one.rule == rule and (path is None or one.path == path)
    ]


def only(repository: Path, rule: str, path: str | None = None) -> Finding:
    findings = found(repository, rule, path)
    assert len(findings) == 1, lint(repository)
    return findings[0]


# --- repositories without faults ------------------------------------------------------------------


def test_what_write_repository_wrote_has_no_errors(repository: Path) -> None:
    assert [one for one in lint(repository) if one.severity == "error"] == []


def test_a_good_padded_repository_is_only_told_that_lengths_do_not_merge(padded: Path) -> None:
    assert {(one.severity, one.rule) for one in lint(padded)} == {
        ("warning", "lengths-do-not-merge")
    }


def test_a_good_packed_repository_is_clean(packed: Path) -> None:
    assert lint(packed) == []


def test_foreign_models_need_no_manifest(padded: Path) -> None:
    (padded / "bert" / "1" / manifest.NAME).unlink()
    assert found(padded, "version-files") == []


# --- one fault in a config ------------------------------------------------------------------------


def drop(field: str) -> Edit:
    return lambda config: config.ClearField(field)


def put(key: str, value: str) -> Edit:
    return lambda config: tensorrt(config).update({key: value})


def put_cuda(key: str) -> Edit:
    return lambda config: cuda(config).update({key: "1"})


def remove_profile(config: pb.ModelConfig) -> None:
    del tensorrt(config)["trt_profile_opt_shapes"]


def shape(which: str, ids: str, mask: str | None = None) -> Edit:
    text = f"input_ids:{ids},attention_mask:{mask or ids}"
    return put(f"trt_profile_{which}_shapes", text)


def zero_warmup(config: pb.ModelConfig) -> None:
    config.model_warmup[0].batch_size = 0


def random_warmup(config: pb.ModelConfig) -> None:
    config.model_warmup[0].inputs["input_ids"].random_data = True


def warmup_without_data(config: pb.ModelConfig) -> None:
    config.model_warmup[0].inputs["input_ids"].ClearField("input_data_file")


def foreign_warmup(config: pb.ModelConfig) -> None:
    config.model_warmup[0].inputs["ids"].data_type = pb.TYPE_INT64


def partial_warmup(config: pb.ModelConfig) -> None:
    del config.model_warmup[0].inputs["attention_mask"]


def add_group(config: pb.ModelConfig) -> None:
    config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_GPU


def add_openvino(config: pb.ModelConfig) -> None:
    accelerators = config.optimization.execution_accelerators
    accelerators.cpu_execution_accelerator.add(name="openvno")


def limit_queue(config: pb.ModelConfig) -> None:
    config.dynamic_batching.default_queue_policy.max_queue_size = 8


PADDED_FAULTS = [
    ("cpu", "queue-limits-stall", "warning", limit_queue, "half a second"),
    ("cpu", "model-name", "error", lambda c: setattr(c, "name", "bort"), '"bort"'),
    ("cpu", "missing-tensors", "error", drop("output"), "no output"),
    ("cpu", "missing-tensors", "error", lambda c: c.input[0].ClearField("dims"), "dims"),
    ("cpu", "no-batching", "warning", drop("max_batch_size"), "max_batch_size: 0"),
    ("cpu", "no-dynamic-batching", "warning", drop("dynamic_batching"), "dynamic_batching {}"),
    ("cpu", "graph-file", "error", lambda c: setattr(c, "default_model_filename", "no"), "no is m"),
    ("cpu", "graph-inputs", "error", lambda c: c.input.pop(), "attention_mask"),
    ("cpu", "graph-inputs", "error", lambda c: c.input.add(name="types"), "the input types"),
    (
        "cpu",
        "graph-inputs",
        "error",
        lambda c: setattr(c.input[0], "data_type", pb.TYPE_INT32),
        "TYPE_INT64",
    ),
    ("cpu", "graph-inputs", "error", lambda c: c.input[0].dims.append(2), "-1, -1, 2"),
    ("cpu", "graph-outputs", "error", lambda c: c.output[0].dims.append(2), "(-1, 3)"),
    ("cpu", "gpu-on-cpu-target", "error", add_group, "KIND_CPU"),
    ("cpu", "accelerator-without-gpu", "warning", put_cuda("use_tf32"), "cuda"),
    ("cpu", "accelerator-name", "error", add_openvino, "openvino"),
    (
        "tensorrt",
        "tensorrt-key",
        "error",
        put("trt_engine_cash_path", "/"),
        "trt_engine_cache_path",
    ),
    ("tensorrt", "tensorrt-key", "error", put("trt_fp16_enable", "1"), "refuses"),
    ("tensorrt", "tensorrt-precision", "error", put("precision_mode", "half"), "FP16"),
    ("tensorrt", "tensorrt-lowers-precision", "error", put("precision_mode", "FP16"), "compared"),
    ("tensorrt", "tensorrt-profile", "error", remove_profile, "lacks trt_profile_opt_shapes"),
    ("tensorrt", "tensorrt-profile", "error", shape("max", "8by64"), "no shape"),
    ("tensorrt", "tensorrt-profile-order", "error", shape("opt", "9x32", "4x32"), "exceeds"),
    ("tensorrt", "tensorrt-profile-max", "error", shape("max", "8x63", "8x64"), "8x64"),
    ("tensorrt", "tensorrt-profile-max", "error", shape("max", "7x64", "8x64"), "max_batch_size"),
    ("tensorrt", "tensorrt-profile-min", "warning", shape("min", "1x16", "1x1"), "begin at 1"),
    ("cuda", "cuda-key-overwritten", "error", put_cuda("gpu_mem_limit"), "top-level `parameters`"),
    ("cuda", "cuda-key", "warning", put_cuda("enable_cuda_graphs"), "Is it enable_cuda_graph?"),
    ("cuda", "cuda-key", "warning", put_cuda("device_id"), "Triton sets itself"),
    ("cuda", "warmup-missing", "warning", drop("model_warmup"), "no model_warmup"),
    ("cuda", "warmup-inputs", "error", foreign_warmup, "input ids"),
    ("cuda", "warmup-inputs", "error", partial_warmup, "leaves out"),
    ("cuda", "warmup-data", "error", warmup_without_data, "no data"),
    ("cuda", "warmup-random-ids", "error", random_warmup, "vocabulary"),
    ("cuda", "warmup-batch", "error", zero_warmup, "skips 0"),
    ("cuda", "targets-differ", "error", lambda c: setattr(c.output[0], "name", "logits"), "logits"),
]


@pytest.mark.parametrize(("target", "rule", "severity", "change", "text"), PADDED_FAULTS)
def test_fault_of_a_padded_config(
    target: str, rule: str, severity: str, change: Edit, text: str, padded: Path
) -> None:
    edit(padded / "bert" / "configs" / f"{target}.pbtxt", change)
    findings = found(padded, rule, f"bert/configs/{target}.pbtxt")
    assert findings
    assert {one.severity for one in findings} == {severity}
    assert any(text in one.message for one in findings)


def count_requests(config: pb.ModelConfig) -> None:
    config.batch_input[0].kind = pb.BatchInput.BATCH_ACCUMULATED_ELEMENT_COUNT


def rename_target(config: pb.ModelConfig) -> None:
    config.batch_input[0].target_name[0] = "ends"


PACKED_FAULTS = [
    ("ragged-without-lengths", lambda c: c.batch_input.pop(0), "BATCH_ITEM_SHAPE"),
    ("ragged-counts-requests", count_requests, "BATCH_ACCUMULATED_ELEMENT_COUNT"),
    ("batch-input", lambda c: setattr(c.batch_input[0], "data_type", pb.TYPE_INT64), "TYPE_FP32"),
    ("batch-input", lambda c: c.batch_input[0].ClearField("source_input"), "source_input"),
    ("batch-input", lambda c: c.batch_input[0].ClearField("target_name"), "no target_name"),
    ("graph-inputs", rename_target, "ends"),
    ("graph-inputs", count_requests, "(-1, 1)"),
    ("graph-inputs", lambda c: setattr(c.batch_input[1], "data_type", pb.TYPE_INT32), "TYPE_INT32"),
    ("graph-inputs", lambda c: setattr(c.input[0], "allow_ragged_batch", False), "(-1, -1)"),
    ("graph-outputs", drop("batch_output"), "token_logits"),
]


@pytest.mark.parametrize(("rule", "change", "text"), PACKED_FAULTS)
def test_fault_of_a_packed_config(rule: str, change: Edit, text: str, packed: Path) -> None:
    edit(packed / "ragged" / "config.pbtxt", change)
    findings = found(packed, rule, "ragged/config.pbtxt")
    assert [one.severity for one in findings if text in one.message]


def test_the_python_backend_needs_no_batch_inputs(packed: Path) -> None:
    def change(config: pb.ModelConfig) -> None:
        config.backend = "python"
        config.ClearField("batch_input")

    edit(packed / "ragged" / "config.pbtxt", change)
    assert found(packed, "ragged-without-lengths") == []


@pytest.mark.parametrize(("lengths", "faults"), [("8x1", []), ("7x1", ["tensorrt-profile-max"])])
def test_a_packed_profile_covers_full_batches(
    lengths: str, faults: list[str], packed: Path
) -> None:
    def change(config: pb.ModelConfig) -> None:
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        parameters = accelerators.add(name="tensorrt").parameters
        for which in ("min", "opt"):
            parameters[f"trt_profile_{which}_shapes"] = "input_ids:1,lengths:1x1,longest:1"
        text = f"input_ids:{8 * WINDOW},lengths:{lengths},longest:{WINDOW}"
        parameters["trt_profile_max_shapes"] = text

    edit(packed / "ragged" / "configs" / "cuda.pbtxt", change)
    assert [one.rule for one in lint(packed)] == faults


def test_profiles_name_the_inputs_of_the_graph(padded: Path) -> None:
    path = padded / "bert" / "configs" / "tensorrt.pbtxt"
    edit(path, put("trt_profile_max_shapes", f"input_ids:8x{WINDOW}x1,mask:8x{WINDOW}"))
    messages = " ".join(one.message for one in found(padded, "tensorrt-profile-inputs"))
    for text in ("lacks the graph's input attention_mask", "names mask", "2 axes"):
        assert text in messages


def test_accelerators_mean_nothing_to_other_backends(padded: Path) -> None:
    path = padded / "bert" / "configs" / "tensorrt.pbtxt"
    edit(path, lambda config: setattr(config, "backend", "python"))
    assert only(padded, "accelerator-ignored").severity == "warning"
    assert found(padded, "tensorrt-key") == []


def test_an_unknown_accelerator(padded: Path) -> None:
    def change(config: pb.ModelConfig) -> None:
        config.optimization.execution_accelerators.gpu_execution_accelerator[0].name = "tensort"

    edit(padded / "bert" / "configs" / "tensorrt.pbtxt", change)
    assert "'tensort' is unknown" in only(padded, "accelerator-name").message


# --- warm-up files and buckets --------------------------------------------------------------------


def test_warmup_files_exist_and_are_long_enough(padded: Path) -> None:
    folder = padded / "bert" / "warmup"
    (folder / "ones_16").unlink()
    (folder / "ones_32").write_bytes(b"short")
    missing, short = found(padded, "warmup-file", "bert/configs/cuda.pbtxt")
    assert "warmup/ones_16 is missing" in missing.message
    assert "warmup/ones_32 has 5 bytes; its sample's dims need 256" in short.message


def test_warmup_reaches_every_bucket(padded: Path) -> None:
    path = padded / "bert" / "configs" / "cuda.pbtxt"
    edit(path, lambda config: config.model_warmup.pop(1))
    finding = only(padded, "warmup-buckets")
    assert finding.severity == "warning"
    assert "up to 32 (buckets 16, 32, 64)" in finding.message


def test_a_skipped_sample_warms_no_bucket(padded: Path) -> None:
    edit(padded / "bert" / "configs" / "cuda.pbtxt", zero_warmup)
    assert "up to 16 " in only(padded, "warmup-buckets").message


# --- folders and files ----------------------------------------------------------------------------


def test_unknown_fields_and_broken_text_are_located(padded: Path) -> None:
    folder = padded / "bert" / "configs"
    (folder / "cpu.pbtxt").write_text('name: "bert"\nmax_batch: 8\n')
    (folder / "cuda.pbtxt").write_bytes(b"\xff\xfe")
    unknown = only(padded, "unparsable-config", "bert/configs/cpu.pbtxt")
    assert unknown.severity == "error"
    assert "2:1" in unknown.message
    assert "max_batch" in unknown.message
    assert only(padded, "unparsable-config", "bert/configs/cuda.pbtxt")


@pytest.mark.parametrize("name", [".cache", "lost+found", "old"])
def test_folders_that_are_no_models(name: str, padded: Path) -> None:
    (padded / name / "1").mkdir(parents=True)
    (padded / "README.md").write_text("files are no models")
    assert only(padded, "stray-folder").path == name


def test_versions_are_numbers_without_leading_zeros(padded: Path) -> None:
    (padded / "bert" / "1").rename(padded / "bert" / "01")
    assert only(padded, "no-version").path == "bert"


def test_a_model_without_a_default_config(padded: Path) -> None:
    (padded / "bert" / "config.pbtxt").unlink()
    assert only(padded, "no-default-config").severity == "warning"


def test_a_damaged_graph(padded: Path) -> None:
    (padded / "bert" / "1" / "model.onnx").write_bytes(b"no protobuf")
    assert "no ONNX file" in found(padded, "graph-file")[0].message
    assert only(padded, "version-files", "bert/1").severity == "error"
    assert found(padded, "graph-inputs") == []


def test_every_version_must_hold_the_graph(padded: Path) -> None:
    shutil.copytree(padded / "bert" / "1", padded / "bert" / "2")
    (padded / "bert" / "2" / "model.onnx").unlink()
    assert {one.message[:9] for one in found(padded, "graph-file")} == {"version 2"}


def test_fp16_on_a_cpu(padded: Path) -> None:
    write_graph(
        padded / "bert" / "1" / "model.onnx", PADDED_INPUTS, PADDED_OUTPUTS, TensorProto.FLOAT16
    )
    paths = {one.path for one in found(padded, "fp16-on-cpu")}
    assert paths == {"bert/config.pbtxt", "bert/configs/cpu.pbtxt"}


@pytest.mark.parametrize("pattern", [artifact.LABELS, "*.onnx", manifest.NAME])
def test_version_files_are_those_of_the_manifest(pattern: str, repository: Path) -> None:
    path = min((repository / TENSOR_MODEL / "1").glob(pattern))
    name = path.name
    path.write_bytes(path.read_bytes() + b" ")
    if name == manifest.NAME:
        path.unlink()
    finding = only(repository, "version-files")
    assert (finding.severity, finding.path) == ("error", f"{TENSOR_MODEL}/1")
    assert name in finding.message


def test_a_graph_that_came_later(repository: Path) -> None:
    folder = repository / TENSOR_MODEL / "1"
    shutil.copy(min(folder.glob("*.onnx")), folder / "mine.onnx")
    assert "mine.onnx is not listed" in only(repository, "version-files").message


def test_the_python_backend_needs_its_variant_too(repository: Path) -> None:
    path = repository / TEXT_MODEL / "configs" / "embedded.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    name = manifest.read(repository / TEXT_MODEL / "1", artifact.KIND).config["graphs"][
        config.parameters["variant"].string_value
    ]
    (repository / TEXT_MODEL / "1" / name).unlink()
    assert name in only(repository, "graph-file", f"{TEXT_MODEL}/configs/embedded.pbtxt").message


# --- agreement ------------------------------------------------------------------------------------


def test_a_packed_target_takes_no_mask(padded: Path) -> None:
    edit(padded / "bert" / "configs" / "cuda.pbtxt", lambda config: config.input.pop())
    assert found(padded, "targets-differ") == []


def test_targets_of_a_model_agree(padded: Path) -> None:
    def change(config: pb.ModelConfig) -> None:
        config.input[1].data_type = pb.TYPE_INT32
        config.output[0].dims[0] = CLASSES + 1

    edit(padded / "bert" / "configs" / "cuda.pbtxt", change)
    messages = [one.message for one in found(padded, "targets-differ")]
    assert len(messages) == 2
    assert "TYPE_INT32 [-1] here and TYPE_INT64 [-1] in bert/config.pbtxt" in messages[0]


def test_both_models_have_the_same_classes(repository: Path) -> None:
    def change(config: pb.ModelConfig) -> None:
        next(one for one in config.output if one.name == "LABEL_SCORES").dims[0] = 99

    path = repository / TEXT_MODEL / "configs" / "cpu.pbtxt"
    edit(path, change)
    finding = only(repository, "models-differ")
    assert (finding.severity, finding.path) == ("error", f"{TEXT_MODEL}/configs/cpu.pbtxt")
    assert "LABEL_SCORES is TYPE_FP32 [99]" in finding.message


def test_the_text_model_calls_the_layout_that_is_served(repository: Path) -> None:
    tensor = text_format.Parse(
        (repository / TENSOR_MODEL / "configs" / "cpu.pbtxt").read_text(), pb.ModelConfig()
    )
    served = "padded" if len(tensor.input) == 2 else "packed"
    wrong = {"padded": "packed", "packed": "padded"}[served]

    def change(config: pb.ModelConfig) -> None:
        config.parameters["layout"].string_value = wrong

    edit(repository / TEXT_MODEL / "configs" / "cpu.pbtxt", change)
    assert f"set layout to {served}" in only(repository, "models-differ").message


def test_the_text_model_needs_the_tensor_model(repository: Path) -> None:
    shutil.rmtree(repository / TENSOR_MODEL)
    assert all(TENSOR_MODEL in one.message for one in found(repository, "models-differ"))
    assert found(repository, "models-differ", f"{TEXT_MODEL}/config.pbtxt")
    assert not found(repository, "models-differ", f"{TEXT_MODEL}/configs/embedded.pbtxt")


def test_every_model_has_every_target(repository: Path) -> None:
    (repository / TENSOR_MODEL / "configs" / "cpu.pbtxt").unlink()
    finding = only(repository, "target-missing")
    assert (finding.severity, finding.path) == ("warning", TENSOR_MODEL)


# --- the command ----------------------------------------------------------------------------------


def ran(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(one) for one in arguments]))


def test_human_output(padded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(padded / "bert" / "configs" / "cpu.pbtxt", lambda config: setattr(config, "name", "x"))
    assert ran(padded) == 1
    *findings, summary = capsys.readouterr().out.splitlines()
    assert any(
        one.startswith("error bert/configs/cpu.pbtxt [model-name] name:") for one in findings
    )
    assert summary == "1 error, 4 warnings"


def test_json_output(padded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(padded, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["errors"], value["warnings"]) == (0, 4)
    assert set(value["findings"][0]) == {"severity", "path", "rule", "message"}


def test_a_clean_repository(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(packed) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings\n"


def test_folders_that_hold_no_model(padded: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        lint(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds no model.*name a Triton"):
        lint(padded / "bert" / "1")
    with pytest.raises(ConfigError, match="it is a model itself"):
        lint(padded / "bert")


def test_hostile_repositories_give_findings(padded: Path) -> None:
    folder = padded / "bert" / "configs"
    (folder / "folder.pbtxt").mkdir()
    (folder / "loop.pbtxt").symlink_to("loop.pbtxt")
    (folder / "numbers.pbtxt").write_text("instance_group { kind: 99 } input { data_type: 99 }")
    edit(folder / "cpu.pbtxt", lambda c: setattr(c, "default_model_filename", "a\0b"))
    (padded / "bert" / "1" / manifest.NAME).write_text("[]")
    assert {one.path for one in lint(padded)} >= {
        "bert/1",
        "bert/configs/cpu.pbtxt",
        "bert/configs/folder.pbtxt",
        "bert/configs/numbers.pbtxt",
    }


def test_a_cache_that_would_mix_answers(repository: Path) -> None:
    """Triton's cache looks at inputs alone: not at the outputs wanted, nor at parameters."""
    path = "multitask/configs/cpu.pbtxt"
    assert not found(repository, "cache-ignores-options")
    edit(repository / path, lambda config: setattr(config.response_cache, "enable", True))
    assert "switch it off" in only(repository, "cache-ignores-options", path).message
