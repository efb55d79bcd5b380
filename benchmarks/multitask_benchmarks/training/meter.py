"""The clocks of one process that trains."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

import torch

from multitask_benchmarks.training.jobs import Report, Work
from multitask_train.data.batches import Batch

# ru_maxrss counts KiB on Linux, torch counts bytes.
_KIB_IN_MIB = 1024
_BYTES_IN_MIB = 2**20


class Meter:
    """Reads the clocks when the warm-up's updates are done and when the timed ones are."""

    def __init__(self, warmup: int, updates: int) -> None:
        self._first, self._last = warmup, warmup + updates
        self._start = (0.0, 0.0) if warmup else _now()
        self._end: tuple[float, float] | None = None

    def updated(self, number: int) -> bool:
        """Note that so many updates are done; returns whether that is all."""
        if number == self._first:
            self._start = _now()
        if number == self._last:
            self._end = _now()
        return self._end is not None

    def report(
        self, work: Sequence[Work], losses: Sequence[float], gradient_norms: Sequence[float]
    ) -> Report:
        """What this process did; work: of every update from the first, warm-up included."""
        assert self._end is not None, f"training ended before update {self._last}"
        return Report(
            seconds=self._end[0] - self._start[0],
            cpu_s=self._end[1] - self._start[1],
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_IN_MIB,
            work=Work.total(work[self._first : self._last]),
            losses=list(losses),
            gradient_norms=list(gradient_norms),
            device_mib=torch.cuda.max_memory_allocated() / _BYTES_IN_MIB,  # 0 without a GPU
        )


def batch_work(batch: Batch) -> Work:
    """What one padded batch holds."""
    ids = batch["input_ids"]
    return Work(len(ids), int(batch["attention_mask"].sum()), ids.numel())


def _now() -> tuple[float, float]:
    """Wall clock and this process's CPU time in seconds, all queued work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
