"""Opens an ONNX Runtime session on a two-output graph and runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from multitask_core.batching import (
    Float32,
    Int64,
    RowLogits,
    Rows,
    pack_rows,
    pad_rows,
    unpack_rows,
    unpad_rows,
)
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.labels import LabelSchema
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

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}


class OnnxEncoder:
    """A callable session: rows of piece ids → logits of each row.

    layout: padded or packed, read off the graph's inputs. threads: intra-op threads; 0 takes the
    CPUs this process may use. Raises ArtifactError for a file that is no such graph, ConfigError
    for a device that the installed ONNX Runtime does not have.
    """

    def __init__(
        self, path: Path, schema: LabelSchema, *, device: str = "cpu", threads: int = 0
    ) -> None:
        self._session = _open(path, device, threads)
        self.layout = _layout(path, self._session)
        _check_graph(path, self._session, schema)

    def __call__(self, rows: Rows) -> list[RowLogits]:
        """Run one batch of rows."""
        if self.layout == PACKED:
            return unpack_rows(rows, *self.run(*pack_rows(rows)))
        return unpad_rows(rows, *self.run(*pad_rows(rows)))

    def run(self, *inputs: Int64 | Float32) -> tuple[Float32, Float32]:
        """Run the graph on its own inputs, in the order of `signature.graph_signature`."""
        names = [INPUT_IDS, *((LENGTHS, LONGEST) if self.layout == PACKED else (ATTENTION_MASK,))]
        feeds = dict(zip(names, inputs, strict=True))
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


def _layout(path: Path, session: Any) -> str:  # noqa: ANN401
    found = {node.name for node in session.get_inputs()}
    layouts = {PADDED: {INPUT_IDS, ATTENTION_MASK}, PACKED: {INPUT_IDS, LENGTHS, LONGEST}}
    for layout, names in layouts.items():
        if found == names:
            return layout
    wanted = " or ".join(str(sorted(names)) for names in layouts.values())
    raise ArtifactError(f"{path} takes {sorted(found)}; this toolkit's graphs take {wanted}")


def _check_graph(path: Path, session: Any, schema: LabelSchema) -> None:  # noqa: ANN401
    shapes = {node.name: node.shape for node in session.get_outputs()}
    for tensor in graph_signature(schema).outputs:
        if tensor.name not in shapes:
            raise ArtifactError(f"{path} has no output {tensor.name!r}; it has {sorted(shapes)}")
        if shapes[tensor.name][-1] != tensor.dims[-1]:
            raise ArtifactError(
                f"{path}: {tensor.name} ends in {shapes[tensor.name][-1]} values, the label schema "
                f"beside it asks for {tensor.dims[-1]}; graph and labels are of different models"
            )
