"""What Optimum's exporter needs to know about the two-headed model."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.utils import NormalizedTextConfig
from torch.jit._trace import TracerWarning

from multitask_core.signature import ATTENTION_MASK, CLASS_LOGITS, INPUT_IDS, TOKEN_LOGITS
from multitask_train.model import MultiTaskModel

# Opset 17 (IR 8) is read by every ONNX Runtime inside the Triton containers since 22.12.
OPSET = 17
IR_VERSION = 8

_AXES = {0: "batch_size", 1: "sequence_length"}


class MultiTaskOnnxConfig(TextEncoderOnnxConfig):  # type: ignore[misc]
    """Two inputs with dynamic batch and sequence axes, two outputs, on the encoder's config."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DEFAULT_ONNX_OPSET = OPSET

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Input names and their dynamic axes."""
        return {INPUT_IDS: dict(_AXES), ATTENTION_MASK: dict(_AXES)}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Output names and their dynamic axes."""
        return {CLASS_LOGITS: {0: _AXES[0]}, TOKEN_LOGITS: dict(_AXES)}


def export_graph(model: MultiTaskModel, path: Path) -> None:
    """Write the FP32 graph in standard ops through Optimum."""
    config = MultiTaskOnnxConfig(model.config.encoder_config, task="feature-extraction")
    with _quiet_tracer():
        export(model, config, path, opset=OPSET)
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
