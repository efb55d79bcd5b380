"""Both heads' cross-entropy as sums, so that parts of an update add up to the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multitask_train.data.batches import Batch
from multitask_train.data.features import IGNORED, Feature
from multitask_train.model import MultiTaskOutput

TASKS = ("classification", "ner")


def balanced_weights(features: Sequence[Feature], classes: int) -> list[float]:
    """n / (classes that occur * n of the class) for each class, 1 for one that never occurs.

    Source: scikit-learn's `class_weight="balanced"` (King and Zeng 2001).
    """
    labels = [one.class_label for one in features if one.class_label != IGNORED]
    counts = torch.bincount(torch.tensor(labels), minlength=classes).tolist()
    present = sum(count > 0 for count in counts)
    return [len(labels) / (present * count) if count else 1.0 for count in counts]


def least_loss(smoothing: float, labels: int) -> float:
    """The least cross-entropy that `smoothing` over so many labels leaves possible, in nats.

    It is the entropy of the wanted distribution: 1 - s + s / n for the right label, s / n for each
    other.
    """
    wanted = [1 - smoothing + smoothing / labels, *[smoothing / labels] * (labels - 1)]
    return -sum(p * math.log(p) for p in wanted if p)


class TaskLosses:
    """Sums over one batch of each task's cross-entropy, for the tasks that it has labels of.

    smoothing: share of the wanted probability that is spread over all labels (Szegedy et al. 2016).
    class_weights: [C] for the sentence loss.
    """

    def __init__(
        self, smoothing: float = 0.0, class_weights: Sequence[float] | None = None
    ) -> None:
        self._smoothing = smoothing
        self._class_weights = None if class_weights is None else torch.tensor(class_weights)

    def __call__(self, output: MultiTaskOutput, batch: Batch) -> dict[str, Tensor]:
        """One summed loss for each task that the batch teaches, FP32."""
        assert output.class_logits is not None
        assert output.token_logits is not None
        weights = self._class_weights
        if weights is not None:
            weights = weights.to(output.class_logits.device)
        sums = {
            "classification": self._sum(output.class_logits, batch["class_labels"], weights),
            "ner": self._sum(output.token_logits.flatten(0, 1), batch["token_labels"].flatten()),
        }
        return {task: value for task, value in sums.items() if value is not None}

    def _sum(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor | None:
        if not bool((labels != IGNORED).any()):
            return None
        return nn.functional.cross_entropy(
            logits.float(),
            labels,
            weights,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self._smoothing,
        )
