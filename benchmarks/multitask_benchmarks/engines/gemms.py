"""The peak that this machine reaches: plain matrix products of the model's own shapes, by torch.

For each (width in, width out) of the encoder's linear layers, `ROWS` rows are multiplied; the best
of the rates is the peak. So many rows that loading the weights costs nothing: the same peak for
small and large batches, whose difference utilisation is to show.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from multitask_benchmarks.engines.flops import ModelShape
from multitask_benchmarks.engines.runners import Source

ROWS = {"cpu": 2048, "cuda": 16384}
# On a GPU calls are queued, so that the time to launch one is hidden by the one before.
_QUEUED = {"cpu": 1, "cuda": 16}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Product = Callable[[], Tensor]


class Gemms:
    """Products in one precision at a time; a process opens it once for all precisions."""

    def __init__(self, shape: ModelShape, device: str, source: Source) -> None:
        torch.set_num_threads(source.cpus)
        self._widths = [(inner, outer) for inner, outer, _ in shape.products]
        self._device = device
        self._made: dict[str, list[tuple[float, Product]]] = {}

    def rate(self, precision: str, seconds: float) -> float:
        """The best rate of all shapes in GFLOP/s, each measured for its part of `seconds`."""
        if precision not in self._made:
            self._made[precision] = [self._product(precision, *one) for one in self._widths]
            for _, product in self._made[precision]:
                product()
            self._wait()
        products = self._made[precision]
        return max(self._measure(flops, run, seconds / len(products)) for flops, run in products)

    def ready(self) -> None:
        """It is."""

    def close(self) -> None:
        """Drop the operands."""
        self._made.clear()

    def _product(self, precision: str, inner: int, outer: int) -> tuple[float, Product]:
        """FLOPs of one product, and what computes it."""
        rows = ROWS[self._device]
        flops = 2.0 * rows * inner * outer
        if precision == "int8":
            kind = {"dtype": torch.int8, "device": self._device}
            left = torch.randint(-127, 128, (rows, inner), **kind)  # type: ignore[call-overload]
            right = torch.randint(-127, 128, (outer, inner), **kind)  # type: ignore[call-overload]
            return flops, lambda: torch._int_mm(left, right.t())
        floats = {"dtype": _DTYPES[precision], "device": self._device}
        data = torch.randn((rows, inner), **floats)  # type: ignore[call-overload]
        weight = torch.randn((outer, inner), **floats)  # type: ignore[call-overload]
        return flops, lambda: torch.nn.functional.linear(data, weight)

    def _measure(self, flops: float, product: Product, seconds: float) -> float:
        calls, queued = 0, _QUEUED[self._device]
        self._wait()
        start_s = now_s = time.perf_counter()
        with torch.inference_mode():
            while now_s < start_s + seconds:
                for _ in range(queued):
                    product()
                self._wait()
                calls += queued
                now_s = time.perf_counter()
        return flops * calls / (now_s - start_s) / 1e9

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
