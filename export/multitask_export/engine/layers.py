"""Which precision the products of an engine run in, from the layer information of trtexec.

TensorRT 10 writes `Format/Datatype` for every input and output of a layer, as `Half` or as `Row
major linear FP16 format`; 11 writes `DataType` and `Format` apart. `N/A due to dynamic shapes`
stands where shapes are not known. Names of the ONNX nodes stand in `Metadata`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitask_core.errors import ParityError

log = logging.getLogger(__name__)

Layer = Mapping[str, Any]

_NAMED = 5
_PRODUCT_TYPE = re.compile(r"gem[mv]|matrix_?multiply|matmul|fully_?connected|mha|attention", re.I)
# Kernels that Myelin, TensorRT's compiler, generated: only some hold a product.
_GENERATED = {"kgen", "fusion"}
_GENERATED_PRODUCT = re.compile(r"(?:^|_)gem[mv]_|_mha_|^__myl_Fc", re.I)
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_HALF_TACTIC = re.compile(r"gemm_f16|hgemm|h\d+gemm|fp16", re.I)
_FLOAT_TACTIC = re.compile(r"gemm_t?f32|sgemm", re.I)


@dataclass(frozen=True)
class Precision:
    """Products by what they run in: FP16, FP32 on purpose (layer names), and not told (names)."""

    half: int
    kept_in_fp32: tuple[str, ...]
    unknown: tuple[str, ...]


def read_layers(*paths: Path) -> list[Layer]:
    """The layers of the first file that holds some in detail; none where no file does."""
    for path in paths:
        try:
            # Names come with raw control characters between them, which strict JSON forbids.
            value = json.loads(path.read_text("utf-8", errors="replace"), strict=False)
            layers: list[Layer] = [one for one in value["Layers"] if isinstance(one, dict)]
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if layers:
            return layers
    return []


def check_precision(layers: Iterable[Layer], kept: Collection[str]) -> Precision:
    """Count products by precision; ParityError for one in FP32 that is not of the `kept` nodes.

    A strongly typed product has operands of one type, so one FP16 input proves it; an FP32 output
    of such a layer is a cast that was fused into it.
    """
    half = 0
    spared: list[str] = []
    unknown: list[str] = []
    wrong: list[str] = []
    for layer in filter(_is_product, layers):
        name, precision = str(layer.get("Name")), _precision(layer)
        if precision == "half":
            half += 1
        elif precision is None:
            unknown.append(name)
        else:
            (spared if _is_kept(layer, kept) else wrong).append(name)
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ParityError(
            f"{len(wrong)} products run in FP32: {', '.join(wrong[:_NAMED])}{more}; on purpose the "
            f"export left {', '.join(sorted(kept)) or 'none'} in FP32. Export the FP16 graph again"
        )
    if not half or unknown:
        log.warning("TensorRT tells the precision of %d products, of %d not", half, len(unknown))
    return Precision(half, tuple(spared), tuple(unknown))


def _is_product(layer: Layer) -> bool:
    kind, name = str(layer.get("LayerType", "")), str(layer.get("Name", ""))
    if kind.lower() in _GENERATED:
        tactic = str(layer.get("TacticName", ""))
        return any(_GENERATED_PRODUCT.search(text) for text in (name, tactic))
    return bool(_PRODUCT_TYPE.search(kind)) or "{ForeignNode[" in name


def _precision(layer: Layer) -> str | None:
    """`half`, `float`, or None where the layer does not tell."""
    if "{ForeignNode[" in str(layer.get("Name", "")):  # a whole subgraph, shown from outside
        return None
    types = {_datatype(tensor) for tensor in layer.get("Inputs") or () if isinstance(tensor, dict)}
    for precision in ("half", "float"):
        if precision in types:
            return precision
    weights = layer.get("Weights")
    if isinstance(weights, dict) and (stored := _named_type(str(weights.get("Type")))):
        return stored
    tactic = str(layer.get("TacticName", ""))
    if _HALF_TACTIC.search(tactic):
        return "half"
    return "float" if _FLOAT_TACTIC.search(tactic) else None


def _datatype(tensor: Layer) -> str | None:
    texts = [str(value) for key, value in tensor.items() if key.lower().endswith("datatype")]
    return _named_type(" ".join(texts))


def _named_type(text: str) -> str | None:
    if re.search(r"\b(half|fp16)\b", text, re.I):
        return "half"
    return "float" if re.search(r"\b(float|fp32)\b", text, re.I) else None


def _is_kept(layer: Layer, kept: Collection[str]) -> bool:
    nodes = set(_NODE.findall(str(layer.get("Metadata", ""))))
    if nodes:
        return not nodes.isdisjoint(kept)
    name = str(layer.get("Name"))  # in which TensorRT writes _ for the dots of node names
    return any(node in name or node.replace(".", "_") in name for node in kept)
