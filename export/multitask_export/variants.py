"""The graph variants of an artifact: for which target each is, and how far it may differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multitask_core.engines import ONNXRUNTIME, OPENVINO, OPENVINO_BF16
from multitask_core.errors import ConfigError
from multitask_core.signature import PACKED, PADDED

FP32, FUSED, PACKED32 = "fp32", "fp32-fused", "fp32-packed"
INT8, INT8_PACKED = "int8", "int8-packed"
FP16, FP16_FUSED, FP16_PACKED = "fp16", "fp16-fused", "fp16-packed"


@dataclass(frozen=True)
class Budget:
    """How far a variant may stand from its checkpoint.

    logits: largest absolute difference, None where only answers count. labels, entities: largest
    share of sentences whose label, or whose entities, change. clear_labels: whether a label may
    change although its margin was larger than the numeric difference. accuracy, f1: largest loss in
    percentage points on labelled sentences.
    """

    logits: float | None
    labels: float
    entities: float
    clear_labels: bool
    accuracy: float
    f1: float


@dataclass(frozen=True)
class Variant:
    """A graph: its file, the variant it is made from ("" for the checkpoint), what it is for.

    precision: fp32, fp16 or int8. contrib: whether it may hold com.microsoft operators.
    """

    name: str
    file: str
    source: str
    layout: str
    precision: str
    contrib: bool
    reason: str


EXACT = Budget(1e-3, labels=0.0, entities=0.0, clear_labels=False, accuracy=0.0, f1=0.0)
BUDGETS = {
    "fp32": EXACT,
    "fp16": Budget(0.1, labels=0.01, entities=0.01, clear_labels=False, accuracy=0.5, f1=0.1),
    "bf16": Budget(0.5, labels=0.01, entities=0.01, clear_labels=False, accuracy=0.5, f1=0.1),
    "int8": Budget(None, labels=0.02, entities=0.10, clear_labels=True, accuracy=0.5, f1=0.5),
}

# A source stands before what is made from it.
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(FP32, "model.onnx", "", PADDED, "fp32", False, "reference; standard operators"),
        Variant(
            FUSED, "model_fused.onnx", FP32, PADDED, "fp32", True, "ORT on CPU: fused attention"
        ),
        Variant(
            PACKED32,
            "model_packed.onnx",
            "",
            PACKED,
            "fp32",
            False,
            "ORT and OpenVINO on CPU, Triton's ragged batching: no padding is computed",
        ),
        Variant(INT8, "model_int8.onnx", FUSED, PADDED, "int8", True, "ORT on CPU: speed first"),
        Variant(
            INT8_PACKED,
            "model_packed_int8.onnx",
            PACKED32,
            PACKED,
            "int8",
            True,
            "ORT on CPU: speed first, no padding is computed",
        ),
        Variant(
            FP16_FUSED, "model_fp16_fused.onnx", FUSED, PADDED, "fp16", True, "ORT's CUDA provider"
        ),
        Variant(
            FP16,
            "model_fp16.onnx",
            FP32,
            PADDED,
            "fp16",
            False,
            "TensorRT, strongly typed: every precision is explicit in standard operators",
        ),
        Variant(
            FP16_PACKED,
            "model_packed_fp16.onnx",
            PACKED32,
            PACKED,
            "fp16",
            False,
            "GPU with Triton's ragged batching, strongly typed",
        ),
    )
}

# What further engines' answers are judged by; tried with FP32 graphs of standard operators.
ENGINE_BUDGETS = {OPENVINO: "fp32", OPENVINO_BF16: "bf16"}

# Best first; the first that passed its gates is served. INT8 changes answers, so it is asked for.
TARGETS = {
    "embedded": (PACKED32, FUSED, FP32),
    "cpu": (PACKED32, FUSED, FP32),
    "cuda": (FP16_FUSED, FP16, FUSED, FP32),
    "tensorrt": (FP16,),
}
CPU_TARGETS = ("embedded", "cpu")
_ON_CPU = (FP32, FUSED, PACKED32, INT8, INT8_PACKED)
SERVABLE = {
    "embedded": _ON_CPU,
    "cpu": _ON_CPU,
    "cuda": (FP16_FUSED, FP16, FP16_PACKED, FUSED, FP32, PACKED32),
    # Its profile is that of padded shapes, and its precision FP16.
    "tensorrt": (FP16,),
}


def check_names(names: set[str]) -> None:
    """Raise ConfigError for a variant that does not exist."""
    if unknown := sorted(names - set(VARIANTS)):
        raise ConfigError(f"unknown variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}")


def with_sources(names: set[str]) -> list[str]:
    """Variants and what they are made from, sources first."""
    needed = set(names)
    for name in reversed([*VARIANTS]):
        if name in needed and VARIANTS[name].source:
            needed.add(VARIANTS[name].source)
    return [name for name in VARIANTS if name in needed]


def check_serve(wanted: Mapping[str, str]) -> None:
    """Raise ConfigError for a target that does not exist or cannot serve what is asked of it."""
    for target, name in wanted.items():
        if target not in TARGETS:
            raise ConfigError(f"unknown target {target}; there are {', '.join(TARGETS)}")
        if name not in SERVABLE[target]:
            raise ConfigError(
                f"{target} cannot serve {name}; it serves {', '.join(SERVABLE[target])}"
            )


def gated_engines(report: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Variant → the engines with which it passed its gates; gates of graphs run on ONNX Runtime."""
    return {
        name: [
            ONNXRUNTIME,
            *(
                engine
                for engine, measured in figures.get("engines", {}).items()
                if "refused" not in measured
            ),
        ]
        for name, figures in report.items()
        if "refused" not in figures
    }


def choose(report: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, str]) -> dict[str, str]:
    """Target → the variant it serves: the one that was asked for, or the best that passed.

    What passed because it was allowed to fail must be asked for. TensorRT gets no graph with nodes
    in FP32: inside ONNX Runtime it may run them in FP16 all the same. A target for which nothing is
    left is left out.
    """
    passed = {
        name
        for name, figures in report.items()
        if "refused" not in figures and "allowed" not in figures
    }
    chosen = {}
    for target, preferred in TARGETS.items():
        mixed = {name for name in passed if report[name].get("kept_in_fp32")}
        good = passed - mixed if target == "tensorrt" else passed
        if target in wanted:
            chosen[target] = wanted[target]
        elif best := next((name for name in preferred if name in good), None):
            chosen[target] = best
    return chosen
