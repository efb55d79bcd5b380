"""Opens an ONNX Runtime session on a two-output graph and runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from multitask_core.batching import Float32, Int64
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.signature import (
    ATTENTION_MASK,
    CLASS_LOGITS,
    INPUT_IDS,
    TOKEN_LOGITS,
    tensor_signature,
)

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}


class OnnxEncoder:
    """A callable session: input_ids and attention_mask INT64 [B, L] → class_logits [B, C] and
    token_logits [B, L, T].

    threads: intra-op threads; 0 takes the CPUs this process may use.
    Raises ArtifactError for a file that is no such graph, ConfigError for a device that the
    installed ONNX Runtime does not have.
    """

    def __init__(
        self, path: Path, schema: LabelSchema, *, device: str = "cpu", threads: int = 0
    ) -> None:
        self._session = _open(path, device, threads)
        _check_graph(path, self._session, schema)

    def __call__(self, input_ids: Int64, attention_mask: Int64) -> tuple[Float32, Float32]:
        """Run one padded batch."""
        feeds = {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask}
        class_logits, token_logits = self._session.run([CLASS_LOGITS, TOKEN_LOGITS], feeds)
        return class_logits, token_logits


def available_cpus() -> int:
    """CPUs that this process may run on, a container's quota apart."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _open(path: Path, device: str, threads: int) -> Any:  # noqa: ANN401  onnxruntime is untyped
    import onnxruntime  # here, because the client imports core and must not load it

    if device not in _PROVIDERS:
        raise ConfigError(f"device {device!r} is unknown: use {' or '.join(_PROVIDERS)}")
    if _PROVIDERS[device][0] not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"this ONNX Runtime has no {_PROVIDERS[device][0]}: install onnxruntime-gpu, "
            "or use device 'cpu'"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not path.is_file():
        raise ArtifactError(f"there is no graph at {path}")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS[device])
    except Exception as error:  # the binding raises several unrelated types
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {error}") from error
    if session.get_providers()[0] != _PROVIDERS[device][0]:  # it falls back without a word
        raise ConfigError(f"ONNX Runtime could not start {_PROVIDERS[device][0]} on this machine")
    return session


def _check_graph(path: Path, session: Any, schema: LabelSchema) -> None:  # noqa: ANN401
    signature = tensor_signature(schema)
    wanted = {tensor.name for tensor in signature.inputs}
    found = {node.name for node in session.get_inputs()}
    if wanted != found:
        raise ArtifactError(f"{path} takes {sorted(found)}; this toolkit's graphs {sorted(wanted)}")
    shapes = {node.name: node.shape for node in session.get_outputs()}
    for tensor in signature.outputs:
        if tensor.name not in shapes:
            raise ArtifactError(f"{path} has no output {tensor.name!r}; it has {sorted(shapes)}")
        if shapes[tensor.name][-1] != tensor.dims[-1]:
            raise ArtifactError(
                f"{path}: {tensor.name} ends in {shapes[tensor.name][-1]} values, the label schema "
                f"beside it asks for {tensor.dims[-1]}; graph and labels are of different models"
            )
