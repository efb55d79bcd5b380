"""Between host and device: pinned tensors, so that copies run by themselves, and one wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multitask_core.batching import Float32, Int64


def to_host_tensor(array: Int64 | Float32, device: str) -> Tensor:
    """An array as a tensor of the host, pinned where a GPU will read it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device == "cuda" else tensor


def host_buffers(shapes: Sequence[tuple[int, ...]], device: str) -> tuple[Tensor, ...]:
    """Pinned FP32 tensors for a GPU's results; none for the CPU, whose results lie there anyway."""
    if device != "cuda":
        return ()
    return tuple(torch.empty(shape, pin_memory=True) for shape in shapes)


def fetch(outputs: Sequence[Tensor], buffers: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """FP32 results on the host; returns when the device has done everything asked of it."""
    if not buffers:
        return tuple(one.float() for one in outputs)
    for buffer, output in zip(buffers, outputs, strict=True):
        buffer.copy_(output, non_blocking=True)
    torch.cuda.synchronize()
    return tuple(buffers)


def device_used_mib() -> float:
    """Memory taken on the GPU, by whomever; 0 without one."""
    if not torch.cuda.is_available():
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return float(total - free) / 2**20
