"""The graph variants of an artifact: how each is made and how far it may differ."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from transformers import PretrainedConfig

from multitask_core.errors import ParityError

FP32 = "fp32"
FUSED = "fp32-fused"
INT8 = "int8"


Recipe = Callable[[Path, Path, PretrainedConfig], None]


@dataclass(frozen=True)
class Budget:
    """How far a variant may stand from its checkpoint.

    logits: largest absolute difference, None where only answers count. labels, entities: largest
    share of sentences whose label, or whose entities, change.
    """

    logits: float | None
    labels: float
    entities: float


@dataclass(frozen=True)
class Variant:
    """A graph: its file, the variant it is made from, how it is made, how far it may differ.

    recipes: functions (source, target, encoder config) that write it, tried until one passes.
    """

    name: str
    file: str
    source: str
    recipes: Mapping[str, Recipe]
    budget: Budget


def fuse(source: Path, target: Path, encoder: PretrainedConfig) -> None:
    """Write the FP32 graph with ONNX Runtime's fused attention, GELU and layer norms.

    Raises ParityError unless every layer has one fused Attention.
    """
    options = FusionOptions("bert")
    # The mask as lengths is silently wrong for padding on the left; the raw one is not.
    options.use_raw_attention_mask(True)
    with _quiet():
        graph = optimizer.optimize_model(
            str(source),
            model_type="bert",
            num_heads=encoder.num_attention_heads,
            hidden_size=encoder.hidden_size,
            optimization_options=options,
            opt_level=0,
        )
        graph.save_model_to_file(str(target))
    _check_fusion(target, encoder.num_hidden_layers)


def quantize(source: Path, target: Path, _: PretrainedConfig) -> None:
    """Write dynamic INT8: weights per channel, activations per tensor at run time."""
    _quantize(source, target, [])


def quantize_but_contractions(source: Path, target: Path, encoder: PretrainedConfig) -> None:
    """Dynamic INT8 with each layer's second feed-forward product in FP32.

    Its input has the outliers that one scale for a whole tensor serves worst.
    """
    graph = onnx.load(source).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    contracting = {
        name
        for name, dims in shapes.items()
        if len(dims) == 2 and dims[0] > dims[1] == encoder.hidden_size
    }
    products = (node for node in graph.node if node.op_type == "MatMul")
    _quantize(source, target, [node.name for node in products if contracting & set(node.input)])


def _quantize(source: Path, target: Path, kept: list[str]) -> None:
    with _quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=True,
            nodes_to_exclude=kept,
            weight_type=QuantType.QInt8,
            # Shape inference knows no com.microsoft op; what it cannot type is float.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def op_counts(path: Path) -> Mapping[str, int]:
    """Operators of a graph and how often each occurs."""
    graph = onnx.load(path, load_external_data=False)
    return dict(sorted(Counter(node.op_type for node in graph.graph.node).items()))


EXACT = Budget(logits=1e-3, labels=0.0, entities=0.0)
# Made from FP32 in this order; FP32 itself comes from the exporter.
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(FUSED, "model_fused.onnx", FP32, {"fused": fuse}, EXACT),
        Variant(
            INT8,
            "model_int8.onnx",
            FUSED,
            {"all products": quantize, "second feed-forward in FP32": quantize_but_contractions},
            Budget(None, 0.02, 0.10),
        ),
    )
}
FP32_FILE = "model.onnx"


def _check_fusion(path: Path, layers: int) -> None:
    found = op_counts(path).get("Attention", 0)
    if found != layers:
        raise ParityError(
            f"{FUSED}: {found} fused Attention nodes for {layers} layers; ONNX Runtime's optimizer "
            "does not know this graph. Export with --variants fp32 to do without"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The optimizer reports every fusion at INFO and the quantizer advises a pre-processing that
    the fused graph cannot take.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
