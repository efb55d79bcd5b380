"""Weights that need no second look at the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multitask_train.balancing.base import Balancer, Losses, Weights
from multitask_train.balancing.scalars import TaskScalars


class StaticWeights(Balancer):
    """The same weights all along; 1 where none is given."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = dict(values)

    def weights(
        self, tasks: list[str], update: int, losses: Losses | None, gramian: Tensor | None
    ) -> Weights:
        """The given weights."""
        del update, losses, gramian
        return {task: self._values.get(task, 1.0) for task in tasks}


class Uncertainty(Balancer):
    """exp(-s) of a learned log variance s for each task, whose loss is exp(-s) L + s / 2.

    s is learned with Adam; its gradient is 1/2 - exp(-s) L. Source: Kendall, Gal and Cipolla 2018,
    "Multi-task learning using uncertainty to weigh losses", for classification. The rate of s is
    its own: at the network's, s would not come near its optimum log 2 L in a short run. It stays
    within LIMIT of 0, since that of a loss of 0, as one class alone has, would fall for ever.
    """

    RATE, LIMIT = 0.025, 10.0

    def __init__(self) -> None:
        self._log_variances = TaskScalars(self.RATE)

    def weights(
        self, tasks: list[str], update: int, losses: Losses | None, gramian: Tensor | None
    ) -> Weights:
        """exp(-s), 1 at first."""
        del update, losses, gramian
        return {task: math.exp(-float(self._log_variances[task])) for task in tasks}

    def observe(self, losses: Losses) -> None:
        """One step of Adam on each s."""
        for task, loss in losses.items():
            self._log_variances.step(task, 0.5 - torch.exp(-self._log_variances[task]) * loss)
            self._log_variances[task].clamp_(-self.LIMIT, self.LIMIT)

    def state(self) -> dict[str, Any]:
        """Each s and its optimiser."""
        return self._log_variances.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._log_variances.restore(state)


class DynamicWeightAverage(Balancer):
    """N softmax(r / T), r a task's mean loss in the last epoch over that in the one before.

    Equal in the first two epochs. T is 2. Source: Liu, Johns and Davison 2019, "End-to-end
    multi-task learning with attention".
    """

    TEMPERATURE = 2.0

    def __init__(self) -> None:
        # epoch → task → sum and number of losses
        self._seen: dict[int, dict[str, tuple[float, int]]] = {}
        self._epoch = 1

    def weights(
        self, tasks: list[str], update: int, losses: Losses | None, gramian: Tensor | None
    ) -> Weights:
        """By the last two whole epochs."""
        del update, losses, gramian
        ratios = {task: self._ratio(task) for task in tasks}
        powers = {task: math.exp(ratio / self.TEMPERATURE) for task, ratio in ratios.items()}
        total = sum(powers.values())
        return {task: len(tasks) * power / total for task, power in powers.items()}

    def begin(self, epoch: int) -> None:
        """From now on the last two epochs are those before this one."""
        self._epoch = epoch
        self._seen = {one: means for one, means in self._seen.items() if one >= epoch - 2}

    def observe(self, losses: Losses) -> None:
        """Add to the epoch's means."""
        now = self._seen.setdefault(self._epoch, {})
        for task, loss in losses.items():
            total, count = now.get(task, (0.0, 0))
            now[task] = (total + loss, count + 1)

    def state(self) -> dict[str, Any]:
        """The last epochs' sums."""
        return {"seen": self._seen, "epoch": self._epoch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._seen, self._epoch = dict(state["seen"]), state["epoch"]

    def _ratio(self, task: str) -> float:
        last, before = self._mean(task, self._epoch - 1), self._mean(task, self._epoch - 2)
        return last / before if last and before else 1.0

    def _mean(self, task: str, epoch: int) -> float | None:
        total, count = self._seen.get(epoch, {}).get(task, (0.0, 0))
        return total / count if count else None


class RandomWeights(Balancer):
    """N softmax(z), z drawn anew for every update from a standard normal distribution.

    Source: Lin, Ye, Zhang and Tsang 2022, "Reasonable effectiveness of random weighting".
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def weights(
        self, tasks: list[str], update: int, losses: Losses | None, gramian: Tensor | None
    ) -> Weights:
        """A function of seed and update alone."""
        del losses, gramian
        generator = torch.Generator().manual_seed(self._seed * 2**20 + update)
        drawn = torch.softmax(torch.randn(len(tasks), generator=generator), 0) * len(tasks)
        return dict(zip(tasks, drawn.tolist(), strict=True))
