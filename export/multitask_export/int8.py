"""INT8 weights for CPUs, with scales worked out for each batch or fixed by calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from transformers import PretrainedConfig

from multitask_core.batching import Rows, pack_rows, pad_rows
from multitask_core.signature import ATTENTION_MASK, INPUT_IDS, LENGTHS, LONGEST
from multitask_export.graph import quiet

CALIBRATION_BATCH = 16


def quantize(source: Path, target: Path, kept: Sequence[str] = ()) -> None:
    """Write dynamic INT8: weights per channel, activations per tensor and batch at run time.

    kept: names of products that stay in FP32.
    """
    with quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=True,
            nodes_to_quantize=_weighted(source),
            nodes_to_exclude=list(kept),
            weight_type=QuantType.QInt8,
            # Shape inference knows no com.microsoft op; what it cannot type is float.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def quantize_calibrated(source: Path, target: Path, rows: Rows, kept: Sequence[str] = ()) -> None:
    """Write static INT8 of a graph in standard ops: activation scales from real rows.

    Its answers do not depend on what else is in the batch.
    """
    with quiet():
        quantize_static(
            source,
            target,
            _Reader(source, rows),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=_weighted(source),
            nodes_to_exclude=list(kept),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def contractions(source: Path, encoder: PretrainedConfig) -> list[str]:
    """Each layer's second feed-forward product.

    Its input has the outliers that one scale for a whole tensor serves worst.
    """
    graph = onnx.load(source).graph
    contracting = {
        weight.name
        for weight in graph.initializer
        if len(weight.dims) == 2 and weight.dims[0] > weight.dims[1] == encoder.hidden_size
    }
    products = (node for node in graph.node if node.op_type == "MatMul")
    return [node.name for node in products if contracting & set(node.input)]


def _weighted(source: Path) -> list[str]:
    """Products with a weight; those of attention scores have none and stay in FP32."""
    graph = onnx.load(source, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Attention") and node.input[1] in weights
    ]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds a graph's own inputs, batch by batch."""

    def __init__(self, source: Path, rows: Rows) -> None:
        graph = onnx.load(source, load_external_data=False).graph
        packed = LENGTHS in {value.name for value in graph.input}
        self._batches = self._feeds(rows, packed)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch's inputs, None behind the last."""
        return next(self._batches, None)

    @staticmethod
    def _feeds(rows: Rows, packed: bool) -> Iterator[dict[str, Any]]:
        names = (INPUT_IDS, LENGTHS, LONGEST) if packed else (INPUT_IDS, ATTENTION_MASK)
        for first in range(0, len(rows), CALIBRATION_BATCH):
            batch = rows[first : first + CALIBRATION_BATCH]
            yield dict(zip(names, (pack_rows if packed else pad_rows)(batch), strict=True))
