"""ONNX Runtime on a GPU, CUDA or TensorRT provider, with inputs and outputs bound on the device.

Not yet run on a GPU: written against ONNX Runtime's documentation of I/O binding and of the options
of both providers (onnxruntime.ai/docs/performance/tune-performance/iobinding.html and
/docs/execution-providers). A fault there is listed as the subject's reason.
"""

from __future__ import annotations

import ctypes.util
import importlib
import importlib.util
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multitask_benchmarks.engines.catalogue import PROVIDERS, TENSORRT, Subject
from multitask_benchmarks.engines.host import fetch, host_buffers, to_host_tensor
from multitask_benchmarks.engines.runners import Job, Source
from multitask_core.artifact import Artifact
from multitask_core.batching import (
    RowLogits,
    Rows,
    pack_rows,
    pad_rows,
    unpack_rows,
    unpad_rows,
)
from multitask_core.errors import ConfigError
from multitask_core.signature import (
    ATTENTION_MASK,
    CLASS_LOGITS,
    INPUT_IDS,
    LENGTHS,
    LONGEST,
    PACKED,
    PADDED,
    TOKEN_LOGITS,
    graph_signature,
)
from multitask_export.variants import VARIANTS

_OPTIMAL_ROWS, _OPTIMAL_PIECES = 32, 128
_TYPES = {torch.int64: np.int64, torch.float32: np.float32}


class CudaGraphRunner:
    """A graph of the artifact on the GPU; torch allocates its tensors and copies them.

    Copies and graph share a stream, so that a call waits for the device once, at its end.
    """

    def __init__(self, subject: Subject, source: Source) -> None:
        assert source.artifact, "the catalogue admits graphs with an artifact alone"
        artifact = Artifact.open(source.artifact)
        self._layout = VARIANTS[subject.variant].layout
        self._names = [one.name for one in graph_signature(artifact.schema, self._layout).inputs]
        self._widths = len(artifact.schema.classes), len(artifact.schema.tags)
        # A stream of its own: ONNX Runtime takes the default one, whose address is 0, for none.
        self._stream = torch.cuda.Stream()
        options = provider_options(subject, source, self._layout)
        options["user_compute_stream"] = str(self._stream.cuda_stream)
        if subject.engine == TENSORRT:
            options |= cache_options(artifact.manifest.identity)
        start_s = time.perf_counter()
        self._session = _open(artifact.graph(subject.variant), subject, options)
        self.facts = {
            "layout": self._layout,
            "providers": self._session.get_providers(),
            # TensorRT builds its engine then, unless the cache holds it.
            "opened_s": round(time.perf_counter() - start_s, 3),
        }

    def prepare(self, rows: Rows) -> Job:
        """Pinned inputs on the host, pinned places for the logits, and both bound on the device."""
        arrays = pad_rows(rows) if self._layout == PADDED else pack_rows(rows)
        classes, tags = self._widths
        shapes = ((len(rows), classes), (*arrays[0].shape, tags))
        inputs = [to_host_tensor(one, "cuda") for one in arrays]
        outputs = dict(zip((CLASS_LOGITS, TOKEN_LOGITS), shapes, strict=True))
        with torch.cuda.stream(self._stream):
            named = dict(zip(self._names, inputs, strict=True))
            bound = BoundGraph(self._session, named, outputs, "cuda")
        return Job(rows, int(np.size(arrays[0])), (bound,), host_buffers(shapes, "cuda"))

    def run(self, job: Job) -> Any:  # noqa: ANN401
        """Copy in, run, copy out, all queued on one stream; then wait."""
        (bound,) = job.inputs
        with torch.cuda.stream(self._stream):
            bound.run()
            return fetch(bound.outputs, job.outputs)

    def logits(self, job: Job, outputs: Any) -> list[RowLogits]:  # noqa: ANN401
        """Split by rows; copied, because the buffers are used again."""
        class_logits, token_logits = (one.numpy().copy() for one in outputs)
        unbatch = unpack_rows if self._layout == PACKED else unpad_rows
        return unbatch(job.rows, class_logits, token_logits)


class BoundGraph:
    """A graph on a batch's own tensors of a device, bound once and run often.

    inputs: tensors of the host by name. outputs: shapes by name; the attribute holds their FP32
    tensors on the device, in that order.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401  an onnxruntime.InferenceSession
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, tuple[int, ...]],
        device: str,
    ) -> None:
        import onnxruntime

        self._session, self._host = session, list(inputs.values())
        self._inputs = [torch.empty_like(one, device=device) for one in self._host]
        self.outputs = [torch.empty(shape, device=device) for shape in outputs.values()]
        self._binding = session.io_binding()
        for name, tensor in zip(inputs, self._inputs, strict=True):
            self._binding.bind_input(name, *_place(tensor, device))
        for name, tensor in zip(outputs, self.outputs, strict=True):
            self._binding.bind_output(name, *_place(tensor, device))
        self._options = onnxruntime.RunOptions()
        # The copies of the results stand behind the graph in its stream: they need no wait between.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run(self) -> None:
        """Copy in and run; on a GPU all of it is only queued."""
        for place, tensor in zip(self._inputs, self._host, strict=True):
            place.copy_(tensor, non_blocking=True)
        self._session.run_with_iobinding(self._binding, self._options)


def provider_options(subject: Subject, source: Source, layout: str) -> dict[str, str]:
    """What the provider is told; options and defaults are in ONNX Runtime's documentation.

    CUDA: no TF32, so that FP32 is FP32. TensorRT: the precision is the graph's own, and one profile
    spans every shape of the run, so that no shape builds an engine while it is timed.
    """
    if subject.engine != TENSORRT:
        return {"device_id": "0", "use_tf32": "0"}
    smallest, largest = (1, 1), (source.most_rows, source.longest)
    best = min(_OPTIMAL_ROWS, source.most_rows), min(_OPTIMAL_PIECES, source.longest)
    return {
        "device_id": "0",
        "trt_fp16_enable": "1" if subject.precision == "fp16" else "0",
        "trt_layer_norm_fp32_fallback": "1",
        "trt_profile_min_shapes": profile(layout, *smallest),
        "trt_profile_opt_shapes": profile(layout, *best),
        "trt_profile_max_shapes": profile(layout, *largest),
    }


def cache_options(identity: str) -> dict[str, str]:
    """Where TensorRT's engines are kept, so that a minute's building is done once for an artifact.

    identity: the artifact's. ONNX Runtime's own key holds graph, profile and architecture, but
    neither weights nor versions, which the folders' names do.
    """
    import onnxruntime

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    versions = f"tensorrt-{_tensorrt_version()}-onnxruntime-{onnxruntime.__version__}"
    timings = home / "multitask-benchmarks" / versions
    engines = timings / identity[:16]
    engines.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(timings),
    }


def profile(layout: str, rows: int, pieces: int) -> str:
    """Shapes of all inputs of a graph, as TensorRT's options take them."""
    if layout == PADDED:
        names = (INPUT_IDS, ATTENTION_MASK)
        return ",".join(f"{name}:{rows}x{pieces}" for name in names)
    return f"{INPUT_IDS}:{rows * pieces},{LENGTHS}:{rows}x1,{LONGEST}:{pieces}"


def _open(path: Path, subject: Subject, given: Mapping[str, str]) -> Any:  # noqa: ANN401
    """An ONNX Runtime session; ConfigError where the provider does not start."""
    import onnxruntime

    # torch is imported: its CUDA and cuDNN are taken, and those of NVIDIA's packages else.
    onnxruntime.preload_dlls()
    wanted = PROVIDERS[subject.engine]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers: list[Any] = [(wanted, dict(given))]
    if subject.engine == TENSORRT:  # for what TensorRT leaves, on the same stream
        shared = {key: given[key] for key in ("device_id", "user_compute_stream")}
        providers.append(("CUDAExecutionProvider", shared))
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if session.get_providers()[0] != wanted:  # it falls back without a word
        raise ConfigError(f"ONNX Runtime could not start {wanted} on this machine")
    return session


def _tensorrt_version() -> str:
    """TensorRT's version; its package, where there is one, loads the libraries of its wheels.

    Without the package the system's library is named, and without that one nothing.
    """
    if importlib.util.find_spec("tensorrt"):
        return str(importlib.import_module("tensorrt").__version__)
    return ctypes.util.find_library("nvinfer") or "unknown"


def _place(tensor: Tensor, device: str) -> tuple[str, int, Any, tuple[int, ...], int]:
    """Device, its number, type, shape and address, as ONNX Runtime binds them."""
    return device, 0, _TYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr()
