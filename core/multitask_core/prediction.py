"""The answer for one text, the same type in process, on the server and in the client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_JSON = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True)
class Entity:
    """A named entity; `start` and `end` are Unicode code points into the text as it was sent."""

    type: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Prediction:
    """The label of a text, the probability of every class and the entities in reading order.

    Where the sentence head was not asked for, the label is "" and there are no scores.
    """

    label: str
    scores: Mapping[str, float]
    entities: tuple[Entity, ...]

    @property
    def score(self) -> float:
        """Probability of the label; KeyError where the sentence head was not asked for."""
        return self.scores[self.label]

    def to_json(self, text: str, *, scores: bool = False) -> str:
        """One JSON object on one line: text, label, score, entities; scores: of all classes."""
        record: dict[str, Any] = {"text": text}
        if self.scores:
            record |= {"label": self.label, "score": self.score}
        if scores:
            record["scores"] = dict(self.scores)
        record["entities"] = [vars(entity) for entity in self.entities]
        return json.dumps(record, ensure_ascii=False)


def entities_to_json(entities: tuple[Entity, ...]) -> str:
    """The JSON array that the text API carries in its ENTITIES output."""
    # vars, not asdict, which copies deeply: a quarter of the server's own time
    return _JSON.encode([vars(entity) for entity in entities]) if entities else "[]"


def entities_from_json(data: str | bytes) -> tuple[Entity, ...]:
    """Read the ENTITIES output; raises ValueError or TypeError on anything else."""
    return tuple(Entity(**item) for item in json.loads(data))
