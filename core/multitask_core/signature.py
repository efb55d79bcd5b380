"""Names, datatypes and dims of both Triton models: the one source for the ONNX graph, config.pbtxt,
the server's models and the client.

Dims leave the batch out, as in a Triton config; -1 varies. Datatypes are those of KServe v2.
"""

from __future__ import annotations

from typing import NamedTuple

from multitask_core.labels import LabelSchema

TEXT_MODEL = "multitask"
TENSOR_MODEL = "multitask_onnx"

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
CLASS_LOGITS = "class_logits"
TOKEN_LOGITS = "token_logits"  # noqa: S105  a tensor's name

TEXT = "TEXT"
LABEL = "LABEL"
LABEL_SCORES = "LABEL_SCORES"
ENTITIES = "ENTITIES"

# Parameter of the text model's config that names the classes in the order of LABEL_SCORES.
CLASSES_PARAMETER = "classes"


class Tensor(NamedTuple):
    """One input or output."""

    name: str
    datatype: str
    dims: tuple[int, ...]


class Signature(NamedTuple):
    """Inputs and outputs of one Triton model."""

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def tensor_signature(schema: LabelSchema) -> Signature:
    """`multitask_onnx`: padded ids and mask in, both heads' logits out."""
    return Signature(
        TENSOR_MODEL,
        (Tensor(INPUT_IDS, "INT64", (-1,)), Tensor(ATTENTION_MASK, "INT64", (-1,))),
        (
            Tensor(CLASS_LOGITS, "FP32", (len(schema.classes),)),
            Tensor(TOKEN_LOGITS, "FP32", (-1, len(schema.tags))),
        ),
    )


def text_signature(schema: LabelSchema) -> Signature:
    """`multitask`: one text in, its label, class probabilities and entities (JSON array) out."""
    return Signature(
        TEXT_MODEL,
        (Tensor(TEXT, "BYTES", (1,)),),
        (
            Tensor(LABEL, "BYTES", (1,)),
            Tensor(LABEL_SCORES, "FP32", (len(schema.classes),)),
            Tensor(ENTITIES, "BYTES", (1,)),
        ),
    )
