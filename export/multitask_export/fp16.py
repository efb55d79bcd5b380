"""FP16 graphs, and the smallest set of nodes that must stay in FP32.

ONNX Runtime's CPU provider runs FP16 graphs in FP32 and drops the roundings between nodes, so an
overflow does not show there. `simulate` writes an FP32 graph that rounds every value that FP16
would round; the gate measures that one too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from multitask_core.errors import ParityError
from multitask_export.graph import as_array, constants, output_types, quiet
from multitask_export.packed import MASKED

LARGEST = float(np.finfo(np.float16).max)
# Nodes that move values and cannot overflow by themselves.
_MOVES = {"Constant", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Slice", "Shape"}


def convert(source: Path, target: Path, kept: Collection[str] = ()) -> None:
    """Write the FP16 form of an FP32 graph: INT64 inputs and FP32 outputs stay.

    Every type is explicit in the graph, as strongly typed TensorRT networks need it. kept: names of
    nodes that stay in FP32. Raises ParityError for a constant that FP16 cannot hold.
    """
    model = _prepared(source)
    check_constants(source.name, model, kept)
    # The converter casts round kept nodes only where it knows a value's type.
    del model.graph.value_info[:]
    for name in sorted(_float_outputs(model) - {value.name for value in model.graph.output}):
        model.graph.value_info.add(name=name).type.tensor_type.elem_type = TensorProto.FLOAT
    with quiet():
        model = convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=True,
            op_block_list=[],
            node_block_list=list(kept),
        )
    del model.graph.value_info[:]
    OnnxModel(model).topological_sort(is_deterministic=True)  # the casts were put at the end
    onnx.checker.check_model(model)
    onnx.save(model, target)


def simulate(source: Path, target: Path, kept: Collection[str] = ()) -> None:
    """Write an FP32 graph that rounds weights and every node's result to FP16, but for `kept`."""
    model = _prepared(source)
    floats = _float_outputs(model)
    graph = model.graph
    rounded = {name for node in graph.node if node.name not in kept for name in node.input if name}
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and weight.name in rounded:
            with np.errstate(over="ignore"):
                half = as_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(half, weight.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.name in kept:
            continue
        for index, name in enumerate(node.output):
            if name in floats:
                exact, half_name = f"{name}/exact", f"{name}/half"
                node.output[index] = exact
                nodes.append(helper.make_node("Cast", [exact], [half_name], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [half_name], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, target)


def smallest_kept(source: Path, passes: Callable[[Collection[str]], bool]) -> list[str]:
    """The nodes that must stay in FP32 for a gate to pass; none can be left out of the list.

    passes: whether the gate passes when the named nodes are kept. Delta debugging over the nodes in
    graph order, so that neighbours go together (Zeller & Hildebrandt 2002, "Simplifying and
    isolating failure-inducing input"). Raises ParityError when even all of them do not help.
    """
    model = _prepared(source)
    floats = _float_outputs(model)
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type not in _MOVES and floats & set(node.output)
    ]
    if not passes(nodes):
        raise ParityError("the graph fails the gate even with every node in FP32")
    return _minimal(nodes, passes)


def check_constants(name: str, model: onnx.ModelProto, kept: Collection[str] = ()) -> None:
    """Raise ParityError for a float constant outside FP16's range, which conversion would clip."""
    spared = {value for node in model.graph.node if node.name in kept for value in node.input}
    for constant, tensor in constants(model.graph):
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or constant in spared:
            continue
        largest = np.abs(as_array(tensor)).max(initial=0.0)
        if not largest <= LARGEST:
            raise ParityError(
                f"{name}: constant {constant} reaches {largest:.3g}; FP16 ends at {LARGEST:.0f}"
            )


def check_precision(path: Path, kept: Collection[str]) -> dict[str, int]:
    """How many matrix products run in FP16 and in FP32; ParityError for one that should not.

    Also refuses a graph in which one operator mixes both, which no strongly typed engine builds.
    """
    model = onnx.load(path)
    types = output_types(model)
    found = {"fp16": 0, "fp32": 0}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Attention"):
            continue
        kind = types[node.output[0]]
        found["fp16" if kind == "tensor(float16)" else "fp32"] += 1
        if kind != "tensor(float16)" and node.name not in kept:
            raise ParityError(f"{path.name}: {node.op_type} {node.name} is {kind}, not FP16")
    return found


def _minimal(nodes: Sequence[str], passes: Callable[[Collection[str]], bool]) -> list[str]:
    """ddmin: halves, then their complements, in ever finer parts."""
    if passes([]):
        return []
    kept, parts = list(nodes), 2
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        chunks = [kept[first : first + size] for first in range(0, len(kept), size)]
        rests = [[one for one in kept if one not in set(chunk)] for chunk in chunks]
        smaller = next((one for one in chunks if passes(one)), None)
        rest = None if smaller or parts == 2 else next((one for one in rests if passes(one)), None)
        if smaller:
            kept, parts = smaller, 2
        elif rest:
            kept, parts = rest, max(parts - 1, 2)
        elif parts < len(kept):
            parts = min(2 * parts, len(kept))
        else:
            break
    return kept


def _prepared(source: Path) -> onnx.ModelProto:
    """The graph with every node named, and its mask constant inside FP16's range.

    Tracing writes the most negative float as mask; what is added to a score need only vanish in the
    softmax.
    """
    model = onnx.load(source)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    lowest = np.finfo(np.float32).min
    for _, tensor in constants(model.graph):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = as_array(tensor)
        if values.size == 1 and values.item() == lowest:
            mask = np.full(values.shape, MASKED, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(mask, tensor.name))
    return model


def _float_outputs(model: onnx.ModelProto) -> set[str]:
    return {name for name, kind in output_types(model).items() if kind == "tensor(float)"}
