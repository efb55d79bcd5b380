"""What the engine is made from: an artifact whose FP16 graph TensorRT can parse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from multitask_core.artifact import Artifact
from multitask_core.errors import ArtifactError
from multitask_core.signature import ATTENTION_MASK, CLASS_LOGITS, INPUT_IDS, TOKEN_LOGITS
from multitask_core.text import TextEncoder

VARIANT = "fp16"
REFERENCE = "fp32"

_STANDARD = {"", "ai.onnx"}
_INPUTS = {INPUT_IDS: TensorProto.INT64, ATTENTION_MASK: TensorProto.INT64}
_OUTPUTS = {CLASS_LOGITS: TensorProto.FLOAT, TOKEN_LOGITS: TensorProto.FLOAT}


@dataclass(frozen=True)
class Source:
    """graph: the FP16 file that is built; reference: the FP32 file that it is compared with.

    kept_in_fp32: names of the ONNX nodes that the export left in FP32 on purpose.
    """

    artifact: Artifact
    graph: Path
    reference: Path
    encoder: TextEncoder
    kept_in_fp32: frozenset[str]

    @property
    def window(self) -> int:
        """Pieces in the longest row, special tokens included."""
        return self.encoder.windowing.max_length


def open_source(folder: Path) -> Source:
    """Check an artifact and its graphs; raises ArtifactError."""
    artifact = Artifact.open(folder)
    graph = artifact.graph(VARIANT)
    _check_graph(graph)
    report = artifact.manifest.report.get(VARIANT) or {}
    return Source(
        artifact,
        graph,
        artifact.graph(REFERENCE),
        artifact.text_encoder(),
        frozenset(report.get("kept_in_fp32") or ()),
    )


def _check_graph(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    foreign = {
        f"{node.domain}.{node.op_type}"
        for node in _nodes(model.graph)
        if node.domain not in _STANDARD
    }
    if foreign:
        raise ArtifactError(
            f"{path.name} has {', '.join(sorted(foreign))}; TensorRT parses operators of the ONNX "
            f"standard alone: export the variant {VARIANT} again without fusion"
        )
    for found, wanted in ((model.graph.input, _INPUTS), (model.graph.output, _OUTPUTS)):
        types = {value.name: value.type.tensor_type.elem_type for value in found}
        if types != wanted:
            raise ArtifactError(
                f"{path.name} has {_named(types)}; an engine is built from a padded graph with "
                f"{_named(wanted)}: export the variant {VARIANT} again"
            )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _named(types: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {TensorProto.DataType.Name(kind)}" for name, kind in types.items())
