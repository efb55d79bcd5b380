"""What the other modules ask of an ONNX file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper


def op_counts(path: Path) -> Mapping[str, int]:
    """Operators of a graph and how often each occurs."""
    graph = onnx.load(path, load_external_data=False).graph
    return dict(sorted(Counter(node.op_type for node in graph.node).items()))


def constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Name and value of every initializer and Constant node."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def as_array(tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    """A constant's values."""
    array: npt.NDArray[np.generic] = numpy_helper.to_array(tensor)
    return array


def output_types(model: onnx.ModelProto) -> dict[str, str]:
    """ONNX Runtime's type of every node's output, such as tensor(float16).

    Contrib operators are typed too, which onnx's own inference does not do.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    for node in probe.graph.node:
        for name in node.output:
            if name and name not in known:
                probe.graph.output.add(name=name)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return {value.name: value.type for value in session.get_outputs()}


@contextmanager
def quiet() -> Iterator[None]:
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
