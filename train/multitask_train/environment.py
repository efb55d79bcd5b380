"""What a run was trained with: environment.json of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from multitask_core.machine import describe

PACKAGES = (
    "accelerate", "datasets", "matplotlib", "multitask-transformer", "numpy", "safetensors",
    "scikit-learn", "scipy", "seqeval", "tokenizers", "torch", "torchjd", "transformers",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Hardware, system, versions and the commit of the working directory, JSON-ready.

    threads: of torch in this process, on which sums of floats, and so the weights, depend. cuda:
    the version that torch was built for, None without.
    """
    return {
        **describe(PACKAGES, Path.cwd()),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
    }
