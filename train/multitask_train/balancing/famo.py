"""FAMO: fast adaptive multitask optimisation, every task's loss falling at the same relative rate.

Source: Liu, Feng, Stone and Liu 2023, "FAMO: Fast adaptive multitask optimization", algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multitask_train.balancing.base import Balancer, Losses, Needs, Weights
from multitask_train.balancing.scalars import TaskScalars

# The authors' choices: Adam's rate for the logits of the weights, its decay, the smallest loss.
RATE, DECAY, LEAST_LOSS = 0.025, 1e-3, 1e-8


class Famo(Balancer):
    """Weights N c z / L of softmax weights z, where c makes the z / L sum to 1.

    After the update the same batches' new losses say how much the log of each loss fell; z moves
    towards the tasks that fell least. That costs one more forward pass an update.
    """

    needs = Needs.LOSSES
    looks_twice = True

    def __init__(self) -> None:
        self._logits = TaskScalars(RATE, DECAY)
        self._before: dict[str, float] = {}

    def weights(
        self, tasks: list[str], update: int, losses: Losses | None, gramian: Tensor | None
    ) -> Weights:
        """By the losses of this update."""
        del update, gramian
        assert losses is not None
        self._before = {task: max(losses[task], LEAST_LOSS) for task in tasks}
        shares = torch.softmax(torch.stack([self._logits[task] for task in tasks]), 0)
        parts = [float(z) / loss for z, loss in zip(shares, self._before.values(), strict=True)]
        scale = len(tasks) / sum(parts)
        return {task: part * scale for task, part in zip(tasks, parts, strict=True)}

    def observe_after(self, losses: Losses) -> None:
        """One step of Adam on the logits of z, whose gradient is J_softmax^T (log L - log L')."""
        tasks = list(self._before)
        if len(tasks) < 2:
            return
        shares = torch.softmax(torch.stack([self._logits[task] for task in tasks]), 0)
        fell = [math.log(self._before[task] / max(losses[task], LEAST_LOSS)) for task in tasks]
        mean = sum(float(z) * d for z, d in zip(shares, fell, strict=True))
        for task, z, d in zip(tasks, shares, fell, strict=True):
            self._logits.step(task, z * (d - mean))

    def state(self) -> dict[str, Any]:
        """The logits and their optimisers."""
        return self._logits.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._logits.restore(state)
