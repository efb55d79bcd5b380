"""Do two subjects give the same answers: same label, same entities (type, start, end)?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from multitask_core.errors import ParityError
from multitask_core.prediction import Prediction

_SHOWN = 5


@dataclass
class Agreement:
    """Counts over texts, and the first few texts with different answers."""

    texts: int = 0
    labels_equal: int = 0
    entities_equal: int = 0
    all_equal: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every answer is the same."""
        return self.all_equal == self.texts

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready counts."""
        return {
            "texts": self.texts,
            "labels_equal": self.labels_equal,
            "entities_equal": self.entities_equal,
            "all_equal": self.all_equal,
        }


def compare(
    texts: Sequence[str], answers: Sequence[Prediction], reference: Sequence[Prediction]
) -> Agreement:
    """Compare answers to the same texts, one by one; scores may differ in their last digits."""
    result = Agreement(len(texts))
    for text, answer, wanted in zip(texts, answers, reference, strict=True):
        label = answer.label == wanted.label
        entities = spans(answer) == spans(wanted)
        result.labels_equal += label
        result.entities_equal += entities
        result.all_equal += label and entities
        if not (label and entities) and len(result.examples) < _SHOWN:
            example = {"text": text, "answer": brief(answer), "reference": brief(wanted)}
            result.examples.append(example)
    return result


def require(agreement: Agreement, name: str, reference: str, *, allow_different: bool) -> None:
    """Raise ParityError with examples where answers differ, unless that is allowed."""
    if agreement.complete or allow_different:
        return
    shown = "\n".join(
        f"  {one['text']!r:.100}\n    {name}: {one['answer']}\n    {reference}: {one['reference']}"
        for one in agreement.examples
    )
    raise ParityError(
        f"{name} and {reference} differ on {agreement.texts - agreement.all_equal} of "
        f"{agreement.texts} texts. Are they of the same training run? A reduced precision such as "
        f"INT8 may differ on a few: --allow-different reports the counts and goes on.\n{shown}"
    )


def spans(prediction: Prediction) -> list[tuple[str, int, int]]:
    """What two equal answers share of their entities."""
    return [(entity.type, entity.start, entity.end) for entity in prediction.entities]


def brief(prediction: Prediction) -> str:
    """An answer in one line."""
    entities = ", ".join(f"{one.type}={one.text!r}" for one in prediction.entities)
    return f"{prediction.label} [{entities}]"
