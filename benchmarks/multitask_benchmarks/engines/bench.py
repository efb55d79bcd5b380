"""One engine under the clock: opens it, warms it up, times it. Runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from multitask_benchmarks.engines import memory
from multitask_benchmarks.engines.catalogue import Subject
from multitask_benchmarks.engines.runners import Job, Runner, Source, find_runner
from multitask_core.batching import RowLogits, Rows


@dataclass(frozen=True)
class Warm:
    """A point's warm-up. first_s: its first call, with whatever is compiled or prepared then.

    call_s: the same batch once more. pass_s: all batches, None where one call was too long already.
    slots: pieces that are computed for every batch, padding included. logits: of the first batch.
    peak_mib: largest resident set of the process meanwhile, the runtime included. device_mib: GPU
    memory that it has taken since its libraries were loaded; 0 without a GPU. Points come from
    small to large, so both are those of the point.
    """

    first_s: float
    call_s: float
    pass_s: float | None
    slots: tuple[int, ...]
    logits: list[RowLogits]
    peak_mib: float = 0.0
    device_mib: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One round at one point: whole passes over its batches.

    cpu_s: of all threads of the process.
    """

    passes: int
    seconds: float
    cpu_s: float
    latencies_ms: list[float] = field(default_factory=list)


class Measurer(Protocol):
    """What `Bench` offers, here or in another process."""

    def ready(self) -> None:
        """Wait until its libraries are loaded: what loads them disturbs others' figures."""
        ...

    def open(self) -> dict[str, Any]:
        """Load the model; what the engine says of itself, JSON-ready."""
        ...

    def logits(self, rows: Rows) -> list[RowLogits]:
        """Answer rows once."""
        ...

    def warm(self, key: str, batches: Sequence[Rows], longest_s: float) -> Warm:
        """Prepare a point's batches and run each once, unless a call takes over `longest_s`."""
        ...

    def measure(self, key: str, seconds: float) -> Sample:
        """Time a point that is warm, for at least `seconds`."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Bench:
    """The engine itself, in this process; torch is imported and CUDA started at once, if needed."""

    def __init__(self, subject: Subject, source: Source) -> None:
        self._subject, self._source = subject, source
        self._find = find_runner(subject)
        self._runner: Runner | None = None
        self._jobs: dict[str, list[Job]] = {}
        self._device = _device_meter(subject.device)
        self._device()  # which starts CUDA
        self._device_mib = 0.0

    def ready(self) -> None:
        """It is."""

    def open(self) -> dict[str, Any]:
        """Load the model; raises what the engine raises."""
        held = self._device()
        self._runner = self._find(self._subject, self._source)
        self._device_mib += self._device() - held
        return self._runner.facts

    def logits(self, rows: Rows) -> list[RowLogits]:
        """Answer rows once."""
        runner = self._opened()
        job = runner.prepare(rows)
        return runner.logits(job, runner.run(job))

    def warm(self, key: str, batches: Sequence[Rows], longest_s: float) -> Warm:
        """Prepare a point's batches and run each, unless a call takes over `longest_s` seconds."""
        runner, held = self._opened(), self._device()
        memory.forget_peak()
        jobs = [runner.prepare(rows) for rows in batches]
        slots = tuple(job.slots for job in jobs)
        first_s, outputs = _timed(runner, jobs[0])
        logits = runner.logits(jobs[0], outputs)
        call_s, _ = _timed(runner, jobs[0])  # the first may have compiled for longer than it ran
        pass_s = None
        if call_s <= longest_s:
            for job in jobs[1:]:
                runner.run(job)
            pass_s = call_s * sum(slots) / slots[0]
            self._jobs[key] = jobs
        self._device_mib += self._device() - held
        peak_mib = memory.peak_mib()
        return Warm(first_s, call_s, pass_s, slots, logits, peak_mib, self._device_mib)

    def measure(self, key: str, seconds: float) -> Sample:
        """Whole passes over a point's batches, at least one, for at least `seconds`."""
        runner, jobs, latencies_ms, passes = self._opened(), self._jobs[key], [], 0
        cpu_s, start_s = time.process_time(), time.perf_counter()
        now_s = start_s
        while now_s < start_s + seconds:
            for job in jobs:
                begin_s = now_s
                runner.run(job)
                now_s = time.perf_counter()
                latencies_ms.append(1e3 * (now_s - begin_s))
            passes += 1
        used_s = time.process_time() - cpu_s
        return Sample(passes, now_s - start_s, used_s, latencies_ms)

    def close(self) -> None:
        """Drop the engine and its batches."""
        self._runner = None
        self._jobs.clear()

    def _opened(self) -> Runner:
        assert self._runner, "open() comes first"
        return self._runner


def _timed(runner: Runner, job: Job) -> tuple[float, Any]:
    start_s = time.perf_counter()
    outputs = runner.run(job)
    return time.perf_counter() - start_s, outputs


def _device_meter(device: str) -> Callable[[], float]:
    """Reads the memory taken on the GPU; only one process works at a time, so changes are its."""
    if device != "cuda":
        return lambda: 0.0
    from multitask_benchmarks.engines.host import device_used_mib

    return device_used_mib
