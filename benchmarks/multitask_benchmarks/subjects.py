"""What is measured: the served model, the artifact in process, the PyTorch checkpoint.

Every subject answers the same texts at the same sizes. For the server a size is the number of
concurrent callers with one text each; in process it is the number of texts in one call, whose
latency is the time of that call.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from multitask_benchmarks.load import Measurement, run_load
from multitask_client import Client
from multitask_core import manifest
from multitask_core.pipeline import Pipeline
from multitask_core.prediction import Prediction

CHECK_CONCURRENCY = 32
CHECK_BATCH = 32


Item_contra = TypeVar("Item_contra", contravariant=True)  # a text, or a row of pieces


class Timed(Protocol[Item_contra]):
    """Something that can be timed on items; name is its row in the table."""

    name: str

    def measure(self, items: Sequence[Item_contra], size: int, seconds: float, /) -> Measurement:
        """Work on items over and over for so long."""
        ...


class Subject(Timed[str], Protocol):
    """Something that answers texts. origin: JSON-ready facts that identify what was measured."""

    origin: dict[str, Any]

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer every text."""
        ...


class ServedModel:
    """A running Triton, over gRPC."""

    def __init__(self, url: str) -> None:
        self.name = "Triton gRPC"
        self._url, self._next = url, 0
        with Client(url) as client:
            client.wait_until_ready(30.0)
            version = client.server_version()
        host = url.rpartition(":")[0].strip("[]")
        here = host in ("localhost", "127.0.0.1", "::1")
        self.origin = {
            "kind": "server",
            "size": "concurrent callers",
            "where": "same machine" if here else "another machine",
            "triton": version,
        }

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer every text, many at once, so that batching is part of what is checked."""
        answers = run_load(self._url, texts, CHECK_CONCURRENCY).predictions
        return [answers[index] for index in range(len(texts))]

    def measure(self, texts: Sequence[str], size: int, seconds: float) -> Measurement:
        """`size` callers in a closed loop, from the text on with which the last one ended."""
        found = run_load(self._url, texts, size, seconds, start=self._next)
        self._next = (self._next + found.texts) % len(texts)
        return found


class InProcess:
    """A pipeline in this process."""

    def __init__(self, name: str, pipeline: Pipeline, origin: dict[str, Any]) -> None:
        self.name = name
        self.origin = {**origin, "size": "texts in a call"}
        self._pipeline = pipeline
        self._next = 0

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer every text in batches."""
        return [
            prediction
            for start in range(0, len(texts), CHECK_BATCH)
            for prediction in self._pipeline.predict(texts[start : start + CHECK_BATCH])
        ]

    def measure(self, texts: Sequence[str], size: int, seconds: float) -> Measurement:
        """Calls of `size` texts, one after the other, from where the last ones ended."""
        result = Measurement()
        stream = islice(cycle(texts), self._next, None)
        start_s = now_s = time.perf_counter()
        while now_s < start_s + seconds:
            batch = list(islice(stream, size))
            begin_s = time.perf_counter()
            self._pipeline.predict(batch)
            now_s = time.perf_counter()
            result.latencies_ms.append(1e3 * (now_s - begin_s))
        result.texts, result.seconds = size * len(result.latencies_ms), now_s - start_s
        self._next = (self._next + result.texts) % len(texts)
        return result


def open_artifact(folder: Path, variant: str = "") -> InProcess:
    """An exported artifact; its default variant unless one is named. Raises ArtifactError."""
    record = manifest.read(folder, "artifact")
    chosen = variant or str(record.config.get("default", ""))
    origin = {"kind": "artifact", "variant": chosen, "identity": record.identity}
    pipeline = Pipeline.from_artifact(folder, variant=variant)
    return InProcess(f"ONNX {chosen}", pipeline, {**origin, "parent": record.parent})


def open_checkpoint(folder: Path) -> InProcess:
    """A PyTorch checkpoint. Raises ArtifactError."""
    # torch takes seconds to load and is needed here alone.
    from multitask_train.checkpoint import load_pipeline

    record = manifest.read(folder, "checkpoint")
    origin = {"kind": "checkpoint", "identity": record.identity}
    return InProcess("PyTorch", load_pipeline(folder), origin)
