"""The first gates, on the graph alone: names, axes, readability, fusion, operators, precision.

Each raises its own ParityError with what was found and what must be.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from multitask_core.errors import ParityError
from multitask_core.labels import LabelSchema
from multitask_core.signature import Tensor, graph_signature
from multitask_export import fp16, fusion
from multitask_export.graph import op_counts
from multitask_export.variants import Variant

# The oldest ONNX Runtime that has to read a graph stands in Triton 24.10: 1.19, IR 10, opset 21.
LAST_OPSET = 21
LAST_IR_VERSION = 10
QUANTISED = {"QAttention", "MatMulInteger", "QLinearMatMul", "DequantizeLinear"}
STANDARD = ("", "ai.onnx")
CONTRIB = (*STANDARD, "com.microsoft")
_TYPES: dict[int, str] = {
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
}


def check_graph(
    path: Path, variant: Variant, schema: LabelSchema, layers: int, kept: Collection[str] = ()
) -> None:
    """Run the graph gates in order. kept: nodes of an FP16 graph that stay in FP32."""
    model = onnx.load(path)
    check_signature(path.name, model, schema, variant.layout)
    check_readable(path.name, model)
    check_operators(path.name, model, contrib=variant.contrib)
    if variant.contrib and variant.precision != "int8":  # quantising renames the operator
        fusion.check_fusion(path, layers)
    if variant.precision == "int8":
        check_quantised(path)
    if variant.precision == "fp16":
        fp16.check_constants(path.name, model, kept)
        fp16.check_precision(path, kept)


def check_signature(name: str, model: onnx.ModelProto, schema: LabelSchema, layout: str) -> None:
    """Names, then datatypes and axes, as `signature.graph_signature` has them."""
    signature = graph_signature(schema, layout)
    for what, nodes, tensors in (
        ("inputs", model.graph.input, signature.inputs),
        ("outputs", model.graph.output, signature.outputs),
    ):
        found = {node.name: node for node in nodes}
        wanted = [tensor.name for tensor in tensors]
        if sorted(found) != sorted(wanted):
            raise ParityError(f"{name}: {what} are {sorted(found)}, must be {sorted(wanted)}")
        for tensor in tensors:
            _check_tensor(name, found[tensor.name], tensor)


def check_readable(name: str, model: onnx.ModelProto) -> None:
    """Opset and IR version must be known to the oldest ONNX Runtime that serves."""
    opset = max((one.version for one in model.opset_import if one.domain in STANDARD), default=0)
    for what, found, last in (
        ("opset", opset, LAST_OPSET),
        ("IR version", model.ir_version, LAST_IR_VERSION),
    ):
        if found > last:
            raise ParityError(f"{name}: {what} {found}; the pinned Triton reads up to {last}")


def check_quantised(path: Path) -> None:
    """Some products must run on INT8, or the name says what is not so."""
    if not QUANTISED & set(op_counts(path)):
        raise ParityError(f"{path.name}: no operator runs on INT8 ({', '.join(sorted(QUANTISED))})")


def check_operators(name: str, model: onnx.ModelProto, *, contrib: bool) -> None:
    """No operator outside the standard where TensorRT or OpenVINO must read the graph."""
    allowed: Sequence[str] = CONTRIB if contrib else STANDARD
    foreign = {
        f"{one.domain}.{one.op_type}" for one in model.graph.node if one.domain not in allowed
    }
    if foreign:
        raise ParityError(
            f"{name}: operators {', '.join(sorted(foreign))} are not among the domains allowed "
            f"here ({', '.join(domain or 'ai.onnx' for domain in allowed)})"
        )


def _check_tensor(name: str, node: onnx.ValueInfoProto, tensor: Tensor) -> None:
    kind = node.type.tensor_type
    found = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    for what, is_, must in (
        ("datatype", _TYPES.get(kind.elem_type, str(kind.elem_type)), tensor.datatype),
        ("axes", found, tensor.dims),
    ):
        if is_ != must:
            note = " (-1 is dynamic)" if what == "axes" else ""
            raise ParityError(f"{name}: {tensor.name} has {what} {is_}, must be {must}{note}")
