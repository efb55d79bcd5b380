"""ONNX Runtime on a GPU, CUDA or TensorRT provider, with inputs and outputs bound on the device.

Not yet run on a GPU: written against ONNX Runtime's documentation of I/O binding and of the options
of both providers (onnxruntime.ai/docs/performance/tune-performance/iobinding.html and
/docs/execution-providers). A fault there is listed as the subject's reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

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


class CudaGraphRunner:
    """A graph of the artifact on the GPU; torch allocates its tensors and copies them."""

    def __init__(self, subject: Subject, source: Source) -> None:
        assert source.artifact, "the catalogue admits graphs with an artifact alone"
        artifact = Artifact.open(source.artifact)
        self._layout = VARIANTS[subject.variant].layout
        self._names = [one.name for one in graph_signature(artifact.schema, self._layout).inputs]
        self._widths = len(artifact.schema.classes), len(artifact.schema.tags)
        self._session = _open(artifact.graph(subject.variant), subject, source, self._layout)
        self.facts = {"layout": self._layout, "providers": self._session.get_providers()}

    def prepare(self, rows: Rows) -> Job:
        """Pinned inputs on the host, and pinned places for the logits."""
        padded = self._layout == PADDED
        arrays = pad_rows(rows) if padded else pack_rows(rows)
        classes, tags = self._widths
        shapes = ((len(rows), classes), (*arrays[0].shape, tags))
        inputs = tuple(to_host_tensor(one, "cuda") for one in arrays)
        return Job(rows, int(np.size(arrays[0])), inputs, host_buffers(shapes, "cuda"))

    def run(self, job: Job) -> Any:  # noqa: ANN401
        """Copy in, run, copy out.

        ONNX Runtime computes on a stream of its own: each side is waited for before the other.
        """
        binding = self._session.io_binding()
        inputs = [one.to("cuda", non_blocking=True) for one in job.inputs]
        outputs = [torch.empty(one.shape, device="cuda") for one in job.outputs]
        for name, tensor in zip(self._names, inputs, strict=True):
            kind = np.int64 if tensor.dtype == torch.int64 else np.float32
            shape, pointer = tuple(tensor.shape), tensor.data_ptr()
            binding.bind_input(name, "cuda", 0, kind, shape, pointer)
        for name, tensor in zip((CLASS_LOGITS, TOKEN_LOGITS), outputs, strict=True):
            shape, pointer = tuple(tensor.shape), tensor.data_ptr()
            binding.bind_output(name, "cuda", 0, np.float32, shape, pointer)
        torch.cuda.current_stream().synchronize()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return fetch(outputs, job.outputs)

    def logits(self, job: Job, outputs: Any) -> list[RowLogits]:  # noqa: ANN401
        """Split by rows; copied, because the buffers are used again."""
        class_logits, token_logits = (one.numpy().copy() for one in outputs)
        unbatch = unpack_rows if self._layout == PACKED else unpad_rows
        return unbatch(job.rows, class_logits, token_logits)


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


def profile(layout: str, rows: int, pieces: int) -> str:
    """Shapes of all inputs of a graph, as TensorRT's options take them."""
    if layout == PADDED:
        names = (INPUT_IDS, ATTENTION_MASK)
        return ",".join(f"{name}:{rows}x{pieces}" for name in names)
    return f"{INPUT_IDS}:{rows * pieces},{LENGTHS}:{rows}x1,{LONGEST}:{pieces}"


def _open(path: Path, subject: Subject, source: Source, layout: str) -> Any:  # noqa: ANN401
    """An ONNX Runtime session; ConfigError where the provider does not start."""
    import onnxruntime

    # torch is imported: its CUDA and cuDNN are taken, and those of NVIDIA's packages else.
    onnxruntime.preload_dlls()
    wanted = PROVIDERS[subject.engine]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers: list[Any] = [(wanted, provider_options(subject, source, layout))]
    if subject.engine == TENSORRT:
        providers.append(("CUDAExecutionProvider", {"device_id": "0"}))
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if session.get_providers()[0] != wanted:  # it falls back without a word
        raise ConfigError(f"ONNX Runtime could not start {wanted} on this machine")
    return session
