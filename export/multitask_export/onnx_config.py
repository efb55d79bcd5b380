"""What Optimum's exporter needs to know about the two-headed model in both layouts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.utils import NormalizedTextConfig
from torch.jit._trace import TracerWarning

from multitask_core.batching import pack_rows
from multitask_core.signature import (
    ATTENTION_MASK,
    CLASS_LOGITS,
    INPUT_IDS,
    LENGTHS,
    LONGEST,
    PADDED,
    TOKEN_LOGITS,
)
from multitask_export.packed import PackedModel
from multitask_train.model import MultiTaskModel

# Opset 17 (IR 8) is read by every ONNX Runtime inside the Triton containers since 22.12.
OPSET = 17
IR_VERSION = 8

_ROWS, _PIECES, _LONGEST = "batch_size", "sequence_length", "longest_row"


class MultiTaskOnnxConfig(TextEncoderOnnxConfig):  # type: ignore[misc]
    """Ids and mask with dynamic batch and sequence axes, two outputs, on the encoder's config."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DEFAULT_ONNX_OPSET = OPSET

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Input names and their dynamic axes."""
        axes = {0: _ROWS, 1: _PIECES}
        return {INPUT_IDS: axes, ATTENTION_MASK: axes}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Output names and their dynamic axes."""
        return {CLASS_LOGITS: {0: _ROWS}, TOKEN_LOGITS: {0: _ROWS, 1: _PIECES}}


class PackedOnnxConfig(MultiTaskOnnxConfig):
    """Pieces of all rows in one line, their lengths, and an input as long as the longest row."""

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Input names and their dynamic axes."""
        return {INPUT_IDS: {0: _PIECES}, LENGTHS: {0: _ROWS}, LONGEST: {0: _LONGEST}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Output names and their dynamic axes."""
        return {CLASS_LOGITS: {0: _ROWS}, TOKEN_LOGITS: {0: _PIECES}}

    def generate_dummy_inputs(self, framework: str = "pt", **_: object) -> dict[str, torch.Tensor]:
        """Three rows of different lengths, for the tracer."""
        assert framework == "pt"
        ids, lengths, longest = pack_rows([[1] * 5, [1] * 9, [1] * 3])
        return {
            INPUT_IDS: torch.from_numpy(ids),
            LENGTHS: torch.from_numpy(lengths),
            LONGEST: torch.from_numpy(longest),
        }


def export_graph(model: MultiTaskModel, path: Path, layout: str = PADDED) -> None:
    """Write the FP32 graph of a layout in standard ops through Optimum.

    Raises ParityError for an encoder that cannot be packed.
    """
    encoder = model.config.encoder_config
    padded = layout == PADDED
    config = (MultiTaskOnnxConfig if padded else PackedOnnxConfig)(
        encoder, task="feature-extraction"
    )
    with _quiet_tracer():
        export(model if padded else PackedModel(model), config, path, opset=OPSET)
    graph = onnx.load(path)
    graph.ir_version = IR_VERSION
    onnx.save(graph, path)


@contextmanager
def _quiet_tracer() -> Iterator[None]:
    """Tracing warns of branches on shapes and of its own deprecation; parity is checked after."""
    loud = logging.getLogger("optimum")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TracerWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        loud.setLevel(level)
