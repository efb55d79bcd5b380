"""Names, datatypes and dims of both Triton models: the one source for the ONNX graph, config.pbtxt,
the server's models and the client.

Datatypes are those of KServe v2; -1 varies. A Triton model's dims leave the batch out, a graph's
have every axis. The tensor model has two layouts of the same weights:

padded: rows of one length with a mask, [batch, length]; requests merge when lengths are equal.
packed: no padding. A request carries its rows, Triton concatenates the pieces of a whole batch
(ragged batching) and tells the graph each row's length, so requests of any lengths merge.
"""

from __future__ import annotations

from typing import NamedTuple

from multitask_core.labels import LabelSchema

TEXT_MODEL = "multitask"
TENSOR_MODEL = "multitask_onnx"

PADDED = "padded"
PACKED = "packed"

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
# Packed graphs: pieces in each row, and a tensor as long as the longest row; its values are unread.
LENGTHS = "lengths"
LONGEST = "longest"
CLASS_LOGITS = "class_logits"
TOKEN_LOGITS = "token_logits"  # noqa: S105  a tensor's name

TEXT = "TEXT"
LABEL = "LABEL"
LABEL_SCORES = "LABEL_SCORES"
ENTITIES = "ENTITIES"

# Parameter of a request to the text model: entities with a lower score are left out.
MIN_ENTITY_SCORE = "min_entity_score"

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


def tensor_signature(schema: LabelSchema, layout: str = PADDED) -> Signature:
    """`multitask_onnx`: ids in, and their mask where padded; both heads' logits out."""
    inputs = (Tensor(INPUT_IDS, "INT64", (-1,)), Tensor(ATTENTION_MASK, "INT64", (-1,)))
    return Signature(
        TENSOR_MODEL,
        inputs if layout == PADDED else inputs[:1],
        (
            Tensor(CLASS_LOGITS, "FP32", (len(schema.classes),)),
            Tensor(TOKEN_LOGITS, "FP32", (-1, len(schema.tags))),
        ),
    )


def graph_signature(schema: LabelSchema, layout: str = PADDED) -> Signature:
    """What the ONNX graph of a layout takes and gives, with every axis."""
    classes, tags = len(schema.classes), len(schema.tags)
    inputs: tuple[Tensor, ...]
    if layout == PADDED:
        inputs = (Tensor(INPUT_IDS, "INT64", (-1, -1)), Tensor(ATTENTION_MASK, "INT64", (-1, -1)))
        pieces: tuple[int, ...] = (-1, -1)
    else:
        inputs = (
            Tensor(INPUT_IDS, "INT64", (-1,)),
            Tensor(LENGTHS, "FP32", (-1, 1)),
            Tensor(LONGEST, "FP32", (-1,)),
        )
        pieces = (-1,)
    outputs = (
        Tensor(CLASS_LOGITS, "FP32", (-1, classes)),
        Tensor(TOKEN_LOGITS, "FP32", (*pieces, tags)),
    )
    return Signature(TENSOR_MODEL, inputs, outputs)


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
