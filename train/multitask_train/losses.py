"""Both heads' losses as parts of an update's mean, which add up to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from multitask_train.data.batches import Batch
from multitask_train.data.features import IGNORED, TASKS, Feature
from multitask_train.model import MultiTaskOutput


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
    """One batch's part of each task's loss.

    A loss is the mean cross-entropy of the labels, plus the mean Kullback-Leibler divergence from
    a teacher's answers where labels are lacking (Li and Hoiem 2016); where a task is taught beside
    its labels too, a share of the former is the mean divergence there (Hinton et al. 2015).

    smoothing: share of the wanted probability that is spread over all labels (Szegedy et al. 2016).
    class_weights: [C] for the sentence loss. shares: of each task's loss that imitates its teacher
    where labels stand; batches bring the weights of its answers.
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self._smoothing, self._shares = smoothing, dict(shares or {})
        self._class_weights = None if class_weights is None else torch.tensor(class_weights)

    def __call__(
        self, output: MultiTaskOutput, batch: Batch, counts: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """FP32, for each task that the batch teaches. counts: see Update."""
        assert output.class_logits is not None
        assert output.token_logits is not None
        logits = {"classification": output.class_logits, "ner": output.token_logits.flatten(0, 1)}
        labels = {"classification": batch["class_labels"], "ner": batch["token_labels"].flatten()}
        parts: dict[str, Tensor] = {}
        for task in TASKS:
            found = []
            if bool((labels[task] != IGNORED).any()):
                weight = (1 - self._shares.get(task, 0.0)) / counts[task]
                found.append(weight * self._cross_entropy(task, logits[task], labels[task]))
            if f"{task}_answers" in batch:
                found.append(_divergence(task, logits[task], batch))
            if found:
                parts[task] = torch.stack(found).sum()
        return parts

    def _cross_entropy(self, task: str, logits: Tensor, labels: Tensor) -> Tensor:
        weights = self._class_weights if task == "classification" else None
        return nn.functional.cross_entropy(
            logits.float(),
            labels,
            None if weights is None else weights.to(logits.device),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self._smoothing,
        )


def _divergence(task: str, logits: Tensor, batch: Batch) -> Tensor:
    """The weighted sum of divergences from a teacher's answers."""
    places, weights = batch[f"{task}_places"], batch[f"{task}_weights"]
    answers = batch[f"{task}_answers"].float().log_softmax(-1)
    divergences = nn.functional.kl_div(
        logits[places].float().log_softmax(-1), answers, reduction="none", log_target=True
    ).sum(-1)
    return (weights * divergences).sum()
