"""The one interface of all balancers: what they may look at, and the weights they answer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from torch import Tensor

Weights = dict[str, float]
Losses = Mapping[str, float]


class Needs(Enum):
    """What has to be known before an update's weights can be.

    NOTHING: its batches run one after the other, each backwards at once. LOSSES: all batches stay
    in memory until the last has run forward. GRADIENTS: each task runs backwards by itself.
    """

    NOTHING = "nothing"
    LOSSES = "losses"
    GRADIENTS = "gradients"


class Balancer:
    """Weights of the tasks in the sum of their losses (or gradients), update by update.

    A task's loss is its mean over all labels of the update in all processes, so every process
    answers the same. Weights are about 1: with N tasks they sum to about N.
    """

    needs = Needs.NOTHING
    # Whether `observe_after` wants the losses again once the weights have changed the model.
    looks_twice = False

    def weights(
        self, tasks: list[str], update: int, losses: Losses | None, gramian: Tensor | None
    ) -> Weights:
        """The weight of each task that update number `update` (from 1) holds.

        losses: with Needs.LOSSES or GRADIENTS. gramian: inner products [N, N] of the tasks'
        gradients of the shared parameters, in the order of `tasks`, with Needs.GRADIENTS.
        """
        raise NotImplementedError

    def begin(self, epoch: int) -> None:
        """Know that the next updates are of epoch number `epoch`, from 1."""

    def observe(self, losses: Losses) -> None:
        """See an update's losses."""

    def observe_after(self, losses: Losses) -> None:
        """See the losses of the same batches after the update."""

    def state(self) -> dict[str, Any]:
        """What resuming has to restore; values that torch.save takes."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
