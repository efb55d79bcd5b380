"""What an engine must offer, and the engines of the CPU's ONNX graphs.

Timed is `run` alone: from arrays on the host to logits on the host, so that every engine pays for
the same way. Making the arrays, by padding or packing rows, is done before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multitask_benchmarks.engines.catalogue import PROVIDERS, TORCH, Subject
from multitask_core.artifact import Artifact
from multitask_core.batching import RowLogits, Rows
from multitask_core.engines import available_cpus
from multitask_core.session import OnnxEncoder


@dataclass(frozen=True)
class Source:
    """Where the weights are, and how they are to be run.

    longest, most_rows: the largest shape of the run. compile_shapes: `dynamic` or `per-shape`.
    """

    checkpoint: Path
    artifact: Path | None = None
    threads: int = 0
    longest: int = 512
    most_rows: int = 1
    compile_shapes: str = "dynamic"

    @property
    def cpus(self) -> int:
        """Threads of an engine."""
        return self.threads or available_cpus()


@dataclass(frozen=True)
class Job:
    """One batch, ready to run. slots: pieces that are computed, padding included.

    inputs: an engine's own tensors. outputs: where it leaves the logits, if it keeps such a place.
    """

    rows: Rows
    slots: int
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...] = ()


class Runner(Protocol):
    """An open engine; `facts` are JSON-ready and say what was opened."""

    facts: dict[str, Any]

    def prepare(self, rows: Rows) -> Job:
        """Rows as this engine's inputs."""
        ...

    def run(self, job: Job) -> Any:  # noqa: ANN401  an engine's own outputs
        """Compute a batch; all work is done and the logits are on the host when it returns."""
        ...

    def logits(self, job: Job, outputs: Any) -> list[RowLogits]:  # noqa: ANN401
        """What `run` gave, row by row."""
        ...


class GraphRunner:
    """A graph on the CPU, through the engines that serving uses."""

    def __init__(self, subject: Subject, source: Source) -> None:
        assert source.artifact, "the catalogue admits graphs with an artifact alone"
        artifact = Artifact.open(source.artifact)
        self._encoder = OnnxEncoder(
            artifact.graph(subject.variant),
            artifact.schema,
            engine=subject.engine,
            threads=source.cpus,
        )
        self.facts = {"layout": self._encoder.layout, "threads": source.cpus}

    def prepare(self, rows: Rows) -> Job:
        """Pad or pack, whichever the graph takes."""
        inputs = self._encoder.prepare(rows)
        return Job(rows, int(np.size(inputs[0])), inputs)

    def run(self, job: Job) -> Any:  # noqa: ANN401
        """Class logits and token logits."""
        return self._encoder.run(*job.inputs)

    def logits(self, job: Job, outputs: Any) -> list[RowLogits]:  # noqa: ANN401
        """Split by rows."""
        return self._encoder.split(job.rows, *outputs)


def find_runner(subject: Subject) -> Callable[[Subject, Source], Runner]:
    """What loads a subject's model, in seconds; torch is imported at once where it is needed."""
    # torch takes seconds and memory that the other engines' processes do without.
    if subject.engine == TORCH:
        from multitask_benchmarks.engines.torch_runner import open_torch

        return open_torch
    if subject.engine in PROVIDERS:
        from multitask_benchmarks.engines.cuda_runner import CudaGraphRunner

        return CudaGraphRunner
    return GraphRunner
