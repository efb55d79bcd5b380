"""What a result was measured on, and the hardware's name for the result's file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from multitask_core.machine import cpu_flags, cpu_model, describe, git_state

__all__ = ["cpu_flags", "cpu_model", "describe_machine", "git_state", "hardware_slug", "slug"]

_PACKAGES = (
    "grpcio", "multitask-transformer", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino",
    "tokenizers", "torch", "transformers", "tritonclient",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """The machine that runs this process and the commit of this code, JSON-ready."""
    return describe(_PACKAGES, Path(__file__).parent)


def hardware_slug(machine: dict[str, Any]) -> str:
    """The name of the hardware as a file name: `nvidia-l4`, `amd-epyc-9b14-2cpu`."""
    if machine["gpus"]:
        name = machine["gpus"][0].partition(",")[0]
    else:
        name = re.sub(r"\((?:R|TM)\)|\bCPU\b|@.*", "", machine["cpu"], flags=re.IGNORECASE)
        name += f" {machine['cpus']}cpu"
    return slug(name)


def slug(name: str) -> str:
    """Lower-case letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
