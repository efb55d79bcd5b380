"""What a result was measured on, and the hardware's name for the result's file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from multitask_core.machine import cpu_flags, cpu_model, describe, git_state

__all__ = ["cpu_flags", "cpu_model", "describe_machine", "git_state", "hardware_slug", "slug"]

_PACKAGES = (
    "accelerate", "grpcio", "multitask-transformer", "numpy", "onnxruntime", "onnxruntime-gpu",
    "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tokenizers", "torch", "transformers",
    "tritonclient",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """The machine that runs this process and the commit of this code, JSON-ready."""
    return {**describe(_PACKAGES, Path(__file__).parent), **_cuda()}


def hardware_slug(machine: dict[str, Any], device: str = "") -> str:
    """The name of the hardware as a file name: `nvidia-l4`, `amd-epyc-9b14-2cpu`.

    device: what a scenario was told to run on; `cpu` names the CPU beside a GPU too.
    """
    if machine["gpus"] and device != "cpu":
        name = machine["gpus"][0].partition(",")[0]
    else:
        name = re.sub(r"\((?:R|TM)\)|\bCPU\b|@.*", "", machine["cpu"], flags=re.IGNORECASE)
        name += f" {machine['cpus']}cpu"
    return slug(name)


def slug(name: str) -> str:
    """Lower-case letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _cuda() -> dict[str, Any]:
    """Which CUDA and cuDNN torch runs on; nothing without a GPU, or where torch is not loaded."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
