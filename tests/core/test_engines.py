"""The same graph on every runtime, and which one `auto` takes."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from multitask_core import engines
from multitask_core.artifact import Artifact
from multitask_core.engines import ONNXRUNTIME, OPENVINO, OPENVINO_BF16
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.session import OnnxEncoder

ROWS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, *range(5, 30), 3]]


@pytest.fixture(scope="module")
def artifact(tiny_artifact) -> Artifact:
    return Artifact.open(tiny_artifact)


def largest_difference(left, right) -> float:
    return max(
        float(np.abs(a - b).max())
        for mine, theirs in zip(left, right, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize("variant", ["fp32", "fp32-packed"])
def test_engines_agree(artifact: Artifact, variant: str) -> None:
    path = artifact.graph(variant)
    plain = OnnxEncoder(path, artifact.schema, threads=1)(ROWS)
    other = OnnxEncoder(path, artifact.schema, engine=OPENVINO, threads=1)(ROWS)
    assert largest_difference(plain, other) < 1e-4


def test_answers_survive_the_next_run(artifact: Artifact) -> None:
    """OpenVINO writes every run's outputs into the same memory."""
    encoder = OnnxEncoder(artifact.graph("fp32"), artifact.schema, engine=OPENVINO, threads=1)
    first = encoder(ROWS)
    kept = [(a.copy(), b.copy()) for a, b in first]
    encoder([[2, 11, 12, 13, 14, 3]] * 3)
    assert largest_difference(first, kept) == 0


@pytest.mark.parametrize("engine", [ONNXRUNTIME, OPENVINO])
def test_an_output_keeps_its_name_where_compiling_folds_it_away(engine: str, tmp_path) -> None:
    """As a head whose bias is still 0: OpenVINO drops the addition, and may name what is left."""
    path = tmp_path / "model.onnx"
    names = ("product", "a_product", "z_product")
    nodes = [
        node
        for name in names
        for node in (
            helper.make_node("MatMul", ["x", "weight"], [name]),
            helper.make_node("Add", [name, "bias"], [f"{name}_logits"]),
        )
    ]
    outputs = [f"{name}_logits" for name in names]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info(one, onnx.TensorProto.FLOAT, ["N", 3]) for one in outputs],
        [
            onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "weight"),
            onnx.numpy_helper.from_array(np.zeros(3, np.float32), "bias"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    session = engines.open_session(path, engine, "cpu", 1)
    assert session.outputs == dict.fromkeys(outputs, 3)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for found in session.run(outputs, {"x": x}):
        np.testing.assert_array_equal(found, x)


def test_bf16_runs_where_the_cpu_has_it_and_is_refused_elsewhere(artifact: Artifact) -> None:
    path = artifact.graph("fp32-packed")
    if fault := engines.engine_fault(OPENVINO_BF16):
        with pytest.raises(ConfigError, match=fault):
            OnnxEncoder(path, artifact.schema, engine=OPENVINO_BF16)
        return
    plain = OnnxEncoder(path, artifact.schema, threads=1)(ROWS)
    half = OnnxEncoder(path, artifact.schema, engine=OPENVINO_BF16, threads=1)(ROWS)
    assert 0 < largest_difference(plain, half) < 0.5


def test_the_export_says_which_engines_passed(artifact: Artifact) -> None:
    assert artifact.engines("fp32-fused") == (ONNXRUNTIME,)
    assert OPENVINO in artifact.engines("fp32-packed")
    assert "engines" in artifact.manifest.report["fp32-packed"]


def with_engines(artifact: Artifact, *names: str) -> Artifact:
    config = {**artifact.manifest.config, "engines": {"fp32-packed": list(names)}}
    return replace(artifact, manifest=artifact.manifest.model_copy(update={"config": config}))


def test_an_engine_that_did_not_pass_is_refused(artifact: Artifact) -> None:
    ungated = with_engines(artifact, ONNXRUNTIME)
    with pytest.raises(ConfigError, match="not found equal to its checkpoint with engine openvino"):
        OnnxEncoder.from_artifact(ungated, "fp32-packed", engine=OPENVINO)
    assert OnnxEncoder.from_artifact(ungated, "fp32-packed", engine="auto").engine == ONNXRUNTIME


def test_auto_takes_bf16_only_where_it_passed_and_runs(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = (ONNXRUNTIME, OPENVINO, OPENVINO_BF16)
    monkeypatch.setattr(engines, "_openvino_capabilities", lambda: ["FP32", "BF16"])
    assert engines.choose(gated) == OPENVINO_BF16
    assert engines.choose((ONNXRUNTIME, OPENVINO)) == ONNXRUNTIME
    assert engines.choose(gated, device="cuda") == ONNXRUNTIME
    monkeypatch.setattr(engines, "_openvino_capabilities", lambda: ["FP32"])
    assert engines.choose(gated) == ONNXRUNTIME


def test_without_openvino_auto_falls_back_and_says_why(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    gated = with_engines(artifact, ONNXRUNTIME, OPENVINO, OPENVINO_BF16)
    with caplog.at_level("INFO"):
        assert OnnxEncoder.from_artifact(gated, "fp32-packed", engine="auto").engine == ONNXRUNTIME
    assert "OpenVINO is not installed" in caplog.text
    with pytest.raises(ConfigError, match="pip install openvino"):
        OnnxEncoder.from_artifact(gated, "fp32-packed", engine=OPENVINO)


def test_openvino_is_loaded_without_its_telemetry(artifact: Artifact) -> None:
    OnnxEncoder(artifact.graph("fp32"), artifact.schema, engine=OPENVINO, threads=1)
    assert sys.modules["openvino_telemetry"] is None


def test_unknown_names_and_broken_files(artifact: Artifact, tmp_path) -> None:
    with pytest.raises(ConfigError, match="engine 'tvm' is unknown: use onnxruntime, openvino"):
        OnnxEncoder(artifact.graph("fp32"), artifact.schema, engine="tvm")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    for engine in (ONNXRUNTIME, OPENVINO):
        with pytest.raises(ArtifactError, match=r"cannot load .*broken\.onnx"):
            OnnxEncoder(broken, artifact.schema, engine=engine)


_WATCHED_IMPORT = """
import importlib, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "imported before it was told"
            print("seen")

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
importlib.import_module("onnxruntime")
"""


@pytest.mark.parametrize(
    "module",
    ["multitask_core.engines", "multitask_export.int8", "multitask_benchmarks.engines.runners"],
)
def test_onnxruntime_is_told_to_keep_quiet_before_it_is_imported(module: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    command = [sys.executable, "-c", _WATCHED_IMPORT, module]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("seen"), done.stderr
