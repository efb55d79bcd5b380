"""Weights from the tasks' gradients, where they pull the shared parameters apart; by torchjd.

Both methods answer a weighted sum of the gradients whose weights depend on the gradients' inner
products alone, which is what torchjd's weightings take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from multitask_train.balancing.base import Balancer, Losses, Needs, Weights

if TYPE_CHECKING:
    from collections.abc import Callable


class _GradientBalancer(Balancer):
    """Applies one of torchjd's weightings, scaled to the convention that weights are about 1."""

    needs = Needs.GRADIENTS

    def __init__(self, weighting: Callable[[Tensor], Tensor]) -> None:
        self._weighting = weighting

    def weights(
        self, tasks: list[str], update: int, losses: Losses | None, gramian: Tensor | None
    ) -> Weights:
        """By the inner products of this update."""
        del update, losses
        assert gramian is not None
        # Nothing to be parted, or a run that diverges, which the loop tells of.
        if len(tasks) < 2 or not bool((gramian.diagonal() > 0).all() and gramian.isfinite().all()):
            return dict.fromkeys(tasks, 1.0)
        return dict(zip(tasks, self._weighting(gramian).tolist(), strict=True))


class PCGrad(_GradientBalancer):
    """Each gradient loses what runs against another; the rest is summed.

    Source: Yu et al. 2020, "Gradient surgery for multi-task learning".
    """

    def __init__(self) -> None:
        from torchjd.aggregation import PCGradWeighting

        super().__init__(PCGradWeighting())


class UPGrad(_GradientBalancer):
    """Each gradient is projected onto the cone where no task's loss grows; the sum of these.

    Source: Quinton and Rey 2024, "Jacobian descent for multi-objective optimization".
    """

    def __init__(self) -> None:
        from torchjd.aggregation import UPGradWeighting

        super().__init__(lambda gramian: UPGradWeighting()(gramian) * len(gramian))
