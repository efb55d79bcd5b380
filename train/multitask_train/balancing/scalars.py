"""One learned number a task, for balancers that learn their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class TaskScalars:
    """A scalar for each task, 0 when it is first asked for, each with an Adam of its own."""

    def __init__(self, rate: float, decay: float = 0.0) -> None:
        self._rate, self._decay = rate, decay
        self._values: dict[str, Tensor] = {}
        self._optimizers: dict[str, torch.optim.Adam] = {}

    def __getitem__(self, task: str) -> Tensor:
        if task not in self._values:
            value = torch.zeros((), dtype=torch.float64)
            self._values[task] = value
            self._optimizers[task] = torch.optim.Adam(
                [value], lr=self._rate, weight_decay=self._decay
            )
        return self._values[task]

    def step(self, task: str, gradient: Tensor) -> None:
        """Move a task's scalar against its gradient."""
        self[task].grad = gradient
        self._optimizers[task].step()

    def state(self) -> dict[str, Any]:
        """Every scalar and its optimiser."""
        return {
            task: (value.clone(), self._optimizers[task].state_dict())
            for task, value in self._values.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for task, (value, optimizer) in state.items():
            self[task].copy_(value)
            self._optimizers[task].load_state_dict(optimizer)
