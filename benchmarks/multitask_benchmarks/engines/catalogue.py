"""Every engine that can be asked for, and why some cannot run here.

A name says what runs where: `torch bf16`, `int8-packed on onnxruntime`, `fp16 on tensorrt`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from multitask_core.engines import ONNXRUNTIME, OPENVINO, OPENVINO_BF16, engine_fault
from multitask_core.errors import ConfigError
from multitask_export import variants

TORCH = "torch"
CUDA, TENSORRT = "onnxruntime-cuda", "tensorrt"
PROVIDERS = {CUDA: "CUDAExecutionProvider", TENSORRT: "TensorrtExecutionProvider"}
COMPILED, FLASH, UNPADDED = "compiled", "flash", "unpadded"


@dataclass(frozen=True)
class Subject:
    """One engine with one form of the model.

    precision: of weights and matrix products: fp32, bf16, fp16, int8. device: cpu or cuda. variant:
    graph of the artifact, "" for the checkpoint. mode: how torch runs. default: measured without
    being asked for.
    """

    engine: str
    precision: str
    device: str = "cpu"
    variant: str = ""
    mode: str = ""
    default: bool = True

    @property
    def name(self) -> str:
        """Its row in tables and result files."""
        if self.engine != TORCH:
            return f"{self.variant} on {self.engine}"
        return " ".join(filter(None, (TORCH, self.precision, self.mode)))


def _graphs(engine: str, device: str, names: Sequence[str], precision: str = "") -> list[Subject]:
    return [
        Subject(engine, precision or variants.VARIANTS[name].precision, device, variant=name)
        for name in names
    ]


_V = variants
_CPU = [
    Subject(TORCH, "fp32"),
    Subject(TORCH, "bf16"),  # weights and activations, which is faster than autocast
    Subject(TORCH, "fp32", mode=COMPILED),
    Subject(TORCH, "bf16", mode=COMPILED, default=False),
    *_graphs(ONNXRUNTIME, "cpu", (_V.FP32, _V.FUSED, _V.PACKED32, _V.INT8, _V.INT8_PACKED)),
    *_graphs(OPENVINO, "cpu", (_V.FP32, _V.PACKED32)),
    *_graphs(OPENVINO_BF16, "cpu", (_V.FP32, _V.PACKED32), "bf16"),
]
_CUDA = [
    Subject(TORCH, "fp32", "cuda"),
    Subject(TORCH, "bf16", "cuda", default=False),
    Subject(TORCH, "fp16", "cuda"),
    Subject(TORCH, "fp16", "cuda", mode=FLASH),
    Subject(TORCH, "fp16", "cuda", mode=UNPADDED),
    Subject(TORCH, "fp16", "cuda", mode=COMPILED),
    Subject(CUDA, "fp32", "cuda", _V.FUSED, default=False),
    *_graphs(CUDA, "cuda", (_V.FP16_FUSED, _V.FP16_PACKED)),
    *_graphs(TENSORRT, "cuda", (_V.FP16,)),
    Subject(TENSORRT, "fp16", "cuda", _V.FP16_PACKED, default=False),
]


def reference(device: str) -> Subject:
    """What every other subject is compared with, in its logits and its speed."""
    return Subject(TORCH, "fp32", device)


def select(patterns: Sequence[str], device: str) -> tuple[list[Subject], dict[str, str]]:
    """Subjects of a device whose names match, the reference first, and why others are left out.

    patterns: as in a shell, any of them; none takes the default ones. Raises ConfigError for a
    pattern that no subject matches.
    """
    every = [*_CPU, *_CUDA]
    for pattern in patterns:
        if not any(fnmatchcase(one.name, pattern) for one in every):
            names = ", ".join(sorted({repr(one.name) for one in every}))
            raise ConfigError(f"--subjects {pattern!r} matches none of {names}")
    chosen, absent = [reference(device)], {}
    for subject in every:
        if not _wanted(subject, patterns) or subject in chosen:
            continue
        if subject.device == device:
            chosen.append(subject)
        elif not any(one.name == subject.name and one.device == device for one in every):
            absent[subject.name] = f"it runs on {subject.device}, this run is on {device}"
    return chosen, absent


def fault(subject: Subject, graphs: Mapping[str, str] | None) -> str:
    """Why a subject cannot run on this machine; empty where nothing is known against it.

    graphs: the variants that the artifact has, None without an artifact.
    """
    if subject.engine == TORCH:
        return _torch_fault(subject)
    if graphs is None:
        return "it needs an artifact: give --artifact"
    if subject.variant not in graphs:
        return f"the artifact has no variant {subject.variant}; it has {', '.join(sorted(graphs))}"
    if subject.engine not in PROVIDERS:
        return engine_fault(subject.engine, subject.device)
    import onnxruntime

    if PROVIDERS[subject.engine] not in onnxruntime.get_available_providers():
        return f"this ONNX Runtime has no {PROVIDERS[subject.engine]}: install onnxruntime-gpu"
    return ""


def _torch_fault(subject: Subject) -> str:
    if subject.mode == COMPILED and subject.device == "cpu":
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            return f"torch.compile needs a C++ compiler for the CPU, and there is no {compiler}"
    return ""


def _wanted(subject: Subject, patterns: Sequence[str]) -> bool:
    if not patterns:
        return subject.default
    return any(fnmatchcase(subject.name, pattern) for pattern in patterns)
