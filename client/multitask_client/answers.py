"""Replies of the server, checked and turned into predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multitask_client.errors import ServerError
from multitask_core.errors import ConfigError
from multitask_core.prediction import Entity, Prediction, entities_from_json
from multitask_core.signature import ENTITIES, LABEL, LABEL_SCORES, MIN_ENTITY_SCORE

if TYPE_CHECKING:
    import numpy as np

HEADS = {"label": (LABEL, LABEL_SCORES), "entities": (ENTITIES,)}


@dataclass(frozen=True)
class Ask:
    """What is wanted of every answer; raises ConfigError for anything else.

    only: one head's name, "" for both. min_entity_score: entities with a lower score are left out.
    """

    only: str = ""
    min_entity_score: float = 0.0

    def __post_init__(self) -> None:
        if self.only and self.only not in HEADS:
            raise ConfigError(f"only={self.only!r}: name one head, {' or '.join(HEADS)}")
        if not 0 <= self.min_entity_score <= 1:
            raise ConfigError(f"min_entity_score={self.min_entity_score}: give 0 to 1")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs to request."""
        return tuple(name for head in self._heads for name in HEADS[head])

    @property
    def parameters(self) -> dict[str, float]:
        """Parameters of the request."""
        return {MIN_ENTITY_SCORE: self.min_entity_score} if self.min_entity_score else {}

    @property
    def _heads(self) -> tuple[str, ...]:
        return (self.only,) if self.only else tuple(HEADS)


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
    answer: RawAnswer, count: int, classes: tuple[str, ...], url: str, ask: Ask
) -> list[Prediction]:
    """Turn LABEL [n, 1], LABEL_SCORES [n, C] and ENTITIES [n, 1] into n predictions.

    A head that was not asked for leaves the label and scores, or the entities, empty.
    Raises ServerError where shapes, classes or the entities' JSON do not fit the contract.
    """
    try:
        labels: list[tuple[str, dict[str, float]]] = [("", {})] * count
        entities: list[tuple[Entity, ...]] = [()] * count
        if LABEL in ask.outputs:
            names = _rows(answer, LABEL, (count, 1))
            scores = _rows(answer, LABEL_SCORES, (count, len(classes)))
            labels = [
                _label(name.decode(), row, classes)
                for (name,), row in zip(names, scores, strict=True)
            ]
        if ENTITIES in ask.outputs:
            entities = [entities_from_json(data) for (data,) in _rows(answer, ENTITIES, (count, 1))]
        return [Prediction(*one, found) for one, found in zip(labels, entities, strict=True)]
    except (ValueError, TypeError, AttributeError) as error:
        raise ServerError(
            f"{url}: the answer of version {answer.version} cannot be read: {error}", url=url
        ) from error


def _rows(answer: RawAnswer, name: str, shape: tuple[int, int]) -> list[Any]:
    output = answer.outputs.get(name)
    if output is None:
        raise ValueError(f"it has no output {name}")
    if output.shape != shape:
        raise ValueError(f"{name} has shape {list(output.shape)}, expected {list(shape)}")
    rows: list[Any] = output.tolist()
    return rows


def _label(label: str, row: list[float], classes: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    scores = dict(zip(classes, row, strict=True))
    # The label is the class of the highest score, so class names of another version show here.
    if scores.get(label) != max(row):
        raise ValueError(f"label {label!r} is not the class of the highest score among {classes}")
    return label, scores
