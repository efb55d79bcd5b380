"""The gate: does a graph answer like its checkpoint? Names, axes, shapes, values, then answers.

Each check raises its own ParityError with what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from multitask_core.batching import Float32
from multitask_core.decode import decode
from multitask_core.errors import ParityError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Logits, Pipeline
from multitask_core.prediction import Prediction
from multitask_core.signature import tensor_signature
from multitask_export.variants import Budget

# Texts that corpora seldom hold; the gate adds them to the real sentences.
HARD_TEXTS = (
    "a",
    "?!",
    "ＦＵＬＬ　ＷＩＤＴＨ and naïve café – “quoted” 😀",
    "supercalifragilisticexpialidocious" * 4,
    "please tell the long story of the town again and again, " * 60,
)
SINGLES = 16


@dataclass(frozen=True)
class Parity:
    """Largest logit differences, and how many of the sentences changed their answer."""

    class_difference: float
    token_difference: float
    labels_changed: int
    entities_changed: int
    sentences: int

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def check_names(path: Path, schema: LabelSchema) -> None:
    """Inputs and outputs must be those of the signature, axes dynamic where it says -1."""
    graph = onnx.load(path, load_external_data=False).graph
    signature = tensor_signature(schema)
    for what, nodes, tensors in (
        ("inputs", graph.input, signature.inputs),
        ("outputs", graph.output, signature.outputs),
    ):
        found = {node.name: _dims(node) for node in nodes}
        wanted = [tensor.name for tensor in tensors]
        if sorted(found) != sorted(wanted):
            raise ParityError(f"{path.name}: {what} are {sorted(found)}, must be {sorted(wanted)}")
        for tensor in tensors:
            dims = (-1, *tensor.dims)
            if found[tensor.name] != dims:
                raise ParityError(
                    f"{path.name}: {tensor.name} has axes {found[tensor.name]}, must be {dims} "
                    "(-1 is dynamic)"
                )


class Reference:
    """A checkpoint's answers, worked out once and compared with every variant.

    The texts run in batches of mixed lengths, and a sample of them one by one.
    """

    def __init__(self, pipeline: Pipeline, texts: Sequence[str]) -> None:
        encoded = pipeline.text_encoder([*HARD_TEXTS, *texts])
        self._sentences = len(texts)
        self._runs = [encoded, *([one] for one in encoded[:: max(1, len(encoded) // SINGLES)])]
        self._logits = [pipeline.logits(run) for run in self._runs]
        self._answers = self._decode(pipeline, self._logits[0])

    def measure(self, candidate: Pipeline) -> Parity:
        """Compare a pipeline; raises ParityError when logits differ in shape or are not finite."""
        logits = [candidate.logits(run) for run in self._runs]
        pairs = [
            pair
            for mine, theirs in zip(self._logits, logits, strict=True)
            for pair in zip(mine, theirs, strict=True)
        ]
        answers = self._decode(candidate, logits[0])
        changes = list(zip(self._answers, answers, strict=True))
        return Parity(
            max(_difference("class_logits", mine[0], theirs[0]) for mine, theirs in pairs),
            max(
                _difference("token_logits", left, right)
                for mine, theirs in pairs
                for left, right in zip(mine[1], theirs[1], strict=True)
            ),
            sum(left.label != right.label for left, right in changes),
            sum(spans(left) != spans(right) for left, right in changes),
            self._sentences,
        )

    def _decode(self, pipeline: Pipeline, logits: Sequence[Logits]) -> list[Prediction]:
        """Answers of the real sentences, which stand behind the hard texts."""
        pairs = list(zip(self._runs[0], logits, strict=True))[len(HARD_TEXTS) :]
        return [decode(text, *one, pipeline.schema) for text, one in pairs]


def check_budget(name: str, parity: Parity, budget: Budget) -> None:
    """Values first, then answers; raises ParityError with the figure and what was allowed."""
    largest = max(parity.class_difference, parity.token_difference)
    if budget.logits is not None and largest > budget.logits:
        raise ParityError(
            f"{name}: logits differ by up to {largest:.2e} from the checkpoint, "
            f"allowed are {budget.logits:.0e}"
        )
    for what, changed, share in (
        ("label", parity.labels_changed, budget.labels),
        ("entities", parity.entities_changed, budget.entities),
    ):
        if changed > share * parity.sentences:
            raise ParityError(
                f"{name}: {changed} of {parity.sentences} sentences change their {what}, "
                f"allowed are {share:.1%}"
            )


def spans(prediction: Prediction) -> list[tuple[int, int, str]]:
    """The entities without their scores."""
    return [(entity.start, entity.end, entity.type) for entity in prediction.entities]


def _difference(name: str, left: Float32, right: Float32) -> float:
    if left.shape != right.shape:
        raise ParityError(f"{name}: shape {right.shape}, the checkpoint gives {left.shape}")
    if not np.isfinite(right).all():
        raise ParityError(f"{name}: {int((~np.isfinite(right)).sum())} values are not finite")
    return float(np.abs(left - right).max(initial=0.0))


def _dims(node: onnx.ValueInfoProto) -> tuple[int, ...]:
    shape = node.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in shape)
