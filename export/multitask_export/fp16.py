"""FP16 graphs, and the smallest set of nodes that must stay in FP32.

ONNX Runtime's CPU provider runs FP16 graphs in FP32 and drops the roundings between nodes, so an
overflow does not show there. `simulate` writes an FP32 graph that rounds every value that FP16
would round; the gate measures that one too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from tqdm import tqdm

from multitask_core.errors import ParityError
from multitask_export.graph import as_array, constants, output_types, quiet
from multitask_export.packed import MASKED

LARGEST = float(np.finfo(np.float16).max)
TRIES = 48
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
            node_block_list=[*kept, *_input_readers(model.graph)],
        )
    del model.graph.value_info[:]
    _join_kept(model.graph)
    OnnxModel(model).topological_sort(is_deterministic=True)  # the casts were put at the end
    onnx.checker.check_model(model)
    onnx.save(model, target)


def simulate(source: Path, target: Path, kept: Collection[str] = ()) -> None:
    """Write an FP32 graph that rounds to FP16 what `convert` would: weights and nodes' results.

    The nodes in `kept` compute in FP32 and hand FP32 to each other.
    """
    model = _prepared(source)
    floats = _float_outputs(model)
    _round_weights(model.graph, kept)
    nodes = []
    for node in model.graph.node:
        results = [name for name in node.output if name in floats]
        if node.name not in kept:  # it reads and gives rounded values only
            node.input[:] = [f"{name}/rounded" if name in floats else name for name in node.input]
            node.output[:] = [f"{name}/exact" if name in floats else name for name in node.output]
        nodes.append(node)
        for name in results:
            nodes.extend(_rounding(name, node.name in kept))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    OnnxModel(model).topological_sort(is_deterministic=True)
    onnx.save(model, target)


def _rounding(name: str, kept: bool) -> list[onnx.NodeProto]:
    """NAME/rounded from a node's result; NAME itself is exact where the node is kept."""
    exact, half, rounded = name if kept else f"{name}/exact", f"{name}/half", f"{name}/rounded"
    nodes = [
        helper.make_node("Cast", [exact], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [rounded], to=TensorProto.FLOAT),
    ]
    return nodes if kept else [*nodes, helper.make_node("Identity", [rounded], [name])]


def _round_weights(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Round what any node outside `kept` reads."""
    read = {name for node in graph.node if node.name not in kept for name in node.input}
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and weight.name in read:
            with np.errstate(over="ignore"):
                values = as_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def search_kept(
    source: Path, passes: Callable[[Collection[str]], bool], tries: int = TRIES
) -> tuple[list[str], bool]:
    """The nodes that must stay in FP32 for a gate to pass, and whether the search was finished.

    passes: whether the gate passes when the named nodes are kept; it fails with none, and more
    nodes never make it fail. The last node of the shortest passing prefix is needed; with it kept,
    the same holds for what stands before it: log2(nodes) tries a needed node (Junker 2004,
    "QuickXplain", in its linear form). Out of tries, the shortest prefix known to pass is returned.
    Raises ParityError when even all nodes do not help.
    """
    model = _prepared(source)
    floats = _float_outputs(model)
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type not in _MOVES and floats & set(node.output)
    ]
    if not passes(nodes):
        raise ParityError("the graph fails the gates even with every node in FP32")
    needed: list[str] = []
    with tqdm(range(tries), unit="try", desc="nodes for FP32", leave=False) as bar:
        left = iter(bar)
        while not needed or not passes(needed):
            low, high = 0, len(nodes)  # the prefix of `low` nodes fails, that of `high` passes
            while high - low > 1:
                if next(left, None) is None:
                    return [*nodes[:high], *needed], False
                middle = (low + high) // 2
                if passes([*nodes[:middle], *needed]):
                    high = middle
                else:
                    low = middle
            if not nodes:  # more nodes did make it fail
                return needed, False
            needed.insert(0, nodes[high - 1])
            nodes = nodes[: high - 1]
    return needed, True


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


def _input_readers(graph: onnx.GraphProto) -> list[str]:
    """Nodes that read a float input: a packed graph's lengths, which FP16 would round."""
    given = {
        value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    return [node.name for node in graph.node if given & set(node.input)]


def _join_kept(graph: onnx.GraphProto) -> None:
    """Let kept neighbours hand each other FP32: the converter puts a pair of casts between them."""
    casts = {
        node.output[0]: (node.input[0], node.attribute[0].i)
        for node in graph.node
        if node.op_type == "Cast"
    }
    exact = {
        name: casts[half][0]
        for name, (half, to) in casts.items()
        if to == TensorProto.FLOAT and half in casts and casts[half][1] == TensorProto.FLOAT16
    }
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = exact.get(name, name)
    read = Counter(name for node in graph.node for name in node.input)
    read.update(value.name for value in graph.output)
    unread = [name for name in casts if not read[name]]
    while unread:  # and what only an unread cast has read
        name = unread.pop()
        source = casts.pop(name)[0]
        read[source] -= 1
        if source in casts and not read[source]:
            unread.append(source)
    for node in [node for node in graph.node if node.op_type == "Cast"]:
        if node.output[0] not in casts:
            graph.node.remove(node)


def _float_outputs(model: onnx.ModelProto) -> set[str]:
    return {name for name, kind in output_types(model).items() if kind == "tensor(float)"}
