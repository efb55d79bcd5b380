"""Replies of the server, checked and turned into predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multitask_client.errors import ServerError
from multitask_core.prediction import Prediction, entities_from_json
from multitask_core.signature import ENTITIES, LABEL, LABEL_SCORES

if TYPE_CHECKING:
    import numpy as np

OUTPUTS = (LABEL, LABEL_SCORES, ENTITIES)


@dataclass(frozen=True)
class ServedConfig:
    """What a client needs of a model's config: batch limit and classes in LABEL_SCORES order."""

    max_batch_size: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class RawAnswer:
    """One reply: the version that gave it and its outputs by name, None where one is missing."""

    version: str
    outputs: Mapping[str, np.ndarray[Any, Any] | None]


@dataclass(frozen=True)
class Statistics:
    """A model's counters since it was loaded, all versions together; times are sums.

    `inferences` counts texts, `executions` batches that ran.
    """

    inferences: int
    executions: int
    queue_ms: float
    compute_ms: float

    def __sub__(self, earlier: Statistics) -> Statistics:
        return Statistics(
            self.inferences - earlier.inferences,
            self.executions - earlier.executions,
            self.queue_ms - earlier.queue_ms,
            self.compute_ms - earlier.compute_ms,
        )


def read_answer(
    answer: RawAnswer, count: int, classes: tuple[str, ...], url: str
) -> list[Prediction]:
    """Turn LABEL [n, 1], LABEL_SCORES [n, C] and ENTITIES [n, 1] into n predictions.

    Raises ServerError where shapes, classes or the entities' JSON do not fit the contract.
    """
    try:
        labels, scores, entities = (
            _rows(answer, name, (count, width))
            for name, width in zip(OUTPUTS, (1, len(classes), 1), strict=True)
        )
        return [
            _prediction(label.decode(), row, data, classes)
            for (label,), row, (data,) in zip(labels, scores, entities, strict=True)
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise ServerError(
            f"{url}: the answer of version {answer.version} cannot be read: {error}", url=url
        ) from error


def _rows(answer: RawAnswer, name: str, shape: tuple[int, int]) -> list[Any]:
    output = answer.outputs[name]
    if output is None:
        raise ValueError(f"it has no output {name}")
    if output.shape != shape:
        raise ValueError(f"{name} has shape {list(output.shape)}, expected {list(shape)}")
    rows: list[Any] = output.tolist()
    return rows


def _prediction(label: str, row: list[float], data: bytes, classes: tuple[str, ...]) -> Prediction:
    scores = dict(zip(classes, row, strict=True))
    # The label is the class of the highest score, so class names of another version show here.
    if scores.get(label) != max(row):
        raise ValueError(f"label {label!r} is not the class of the highest score among {classes}")
    return Prediction(label, scores, entities_from_json(data))
