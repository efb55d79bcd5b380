"""The task gate: what a changed graph costs on labelled sentences, with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from multitask_core.prediction import Prediction
from multitask_train.data import Example

RESAMPLES = 2_000
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """A metric in percent before and after, and the 95 % bootstrap interval of after - before."""

    before: float
    after: float
    low: float
    high: float

    @property
    def loss(self) -> float:
        """Percentage points lost; negative where the metric rose."""
        return self.before - self.after

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def spans(prediction: Prediction) -> list[tuple[int, int, str]]:
    """The entities without their scores."""
    return [(entity.start, entity.end, entity.type) for entity in prediction.entities]


def accuracy_change(
    examples: Sequence[Example], before: Sequence[Prediction], after: Sequence[Prediction]
) -> Change | None:
    """Sentence accuracy; None where no sentence carries a label."""
    rows = [
        (old.label == example.label, new.label == example.label)
        for example, old, new in zip(examples, before, after, strict=True)
        if example.label
    ]
    if not rows:
        return None
    right = np.array(rows, np.int64)[..., None]
    return _change(right[:, 0], right[:, 1], lambda sums, count: 100 * sums[..., 0] / count)


def f1_change(
    examples: Sequence[Example], before: Sequence[Prediction], after: Sequence[Prediction]
) -> Change | None:
    """Strict micro F1 of entities; None where no sentence marks entities."""
    rows = [
        (_matches(example, old), _matches(example, new))
        for example, old, new in zip(examples, before, after, strict=True)
        if example.entities is not None
    ]
    if not rows:
        return None
    counts = np.array(rows, np.int64)
    return _change(counts[:, 0], counts[:, 1], lambda sums, _: _f1(sums))


def _matches(example: Example, prediction: Prediction) -> tuple[int, int, int]:
    """Right, predicted and gold entities."""
    gold, found = set(map(tuple, example.entities or ())), set(spans(prediction))
    return len(gold & found), len(found), len(gold)


def _f1(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    right, found, gold = sums[..., 0], sums[..., 1], sums[..., 2]
    total = found + gold
    result: npt.NDArray[np.float64] = 100 * np.where(total > 0, 2 * right / np.maximum(total, 1), 1)
    return result


def _change(
    before: Counts, after: Counts, metric: Callable[[npt.NDArray[np.float64], int], object]
) -> Change:
    """Paired bootstrap over sentences, seeded. (Efron & Tibshirani 1993, ch. 13)

    before, after: counts of each sentence, [n, k]; metric: sums [..., k] → value [...].
    """
    count = len(before)
    random = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        weights = random.multinomial(count, np.full(count, 1 / count))
        draws.append([(weights @ part).astype(np.float64) for part in (before, after)])
    sums = np.array(draws)  # [resamples, 2, k]
    differences = np.asarray(metric(sums[:, 1], count)) - np.asarray(metric(sums[:, 0], count))
    low, high = np.percentile(differences, (2.5, 97.5)).tolist()
    old, new = (
        float(np.asarray(metric(part.sum(0).astype(np.float64), count))) for part in (before, after)
    )
    return Change(old, new, low, high)
