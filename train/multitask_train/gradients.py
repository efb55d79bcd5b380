"""Gradients over several processes, and each task's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter


class Lookup(NamedTuple):
    """A table of embeddings, and the rows [K] that some process has read: none else has gradients.

    Most of a small encoder's parameters are rows of words that an update does not hold.
    """

    table: Parameter
    rows: Tensor


def sum_over_processes(
    accelerator: Accelerator, parameters: Sequence[Parameter], lookup: Lookup | None = None
) -> None:
    """Sum `.grad` of all processes; a parameter that none of them reached keeps none.

    One flat message an update: cheaper than a message a layer where updates gather batches.
    """
    if accelerator.num_processes == 1:
        return
    gradients = _sum(accelerator, [one.grad for one in parameters], parameters, lookup)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


class TaskGradients:
    """One gradient a task of every trained parameter; `shared` are those of the encoder."""

    def __init__(
        self, tasks: Sequence[str], trained: Sequence[Parameter], shared: Sequence[Parameter]
    ) -> None:
        self._trained, self._shared = list(trained), {id(one) for one in shared}
        self._found: dict[str, list[Tensor | None]] = {
            task: [None] * len(self._trained) for task in tasks
        }

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add one batch's gradients; its graph is freed."""
        left = len(losses)
        for task, loss in losses.items():
            left -= 1
            gradients = torch.autograd.grad(
                loss, self._trained, retain_graph=left > 0, allow_unused=True
            )
            held = self._found[task]
            for at, gradient in enumerate(gradients):
                if gradient is not None:
                    before = held[at]
                    held[at] = gradient if before is None else before + gradient

    def sum_over_processes(self, accelerator: Accelerator, lookup: Lookup | None = None) -> None:
        """Sum each task's gradients of all processes."""
        if accelerator.num_processes > 1:
            for task, gradients in self._found.items():
                self._found[task] = _sum(accelerator, gradients, self._trained, lookup)

    def gramian(self) -> Tensor:
        """Inner products [N, N] of the tasks' gradients of the shared parameters, FP32."""
        rows = list(self._found.values())
        gramian = torch.zeros(len(rows), len(rows), device=self._trained[0].device)
        for i, left in enumerate(rows):
            for j, right in enumerate(rows[: i + 1]):
                gramian[i, j] = gramian[j, i] = self._product(left, right)
        return gramian

    def combine(self, weights: Mapping[str, float]) -> None:
        """Put the weighted sum into `.grad` of the shared parameters, the plain sum elsewhere."""
        for at, parameter in enumerate(self._trained):
            shared = id(parameter) in self._shared
            parts = [
                gradient * (weights[task] if shared else 1.0)
                for task, gradients in self._found.items()
                if (gradient := gradients[at]) is not None
            ]
            parameter.grad = torch.stack(parts).sum(0) if parts else None

    def _product(self, left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> Tensor:
        products = [
            (a.float() * b.float()).sum()
            for a, b, parameter in zip(left, right, self._trained, strict=True)
            if a is not None and b is not None and id(parameter) in self._shared
        ]
        return torch.stack(products).sum() if products else torch.zeros(())


def _sum(
    accelerator: Accelerator,
    gradients: Sequence[Tensor | None],
    parameters: Sequence[Parameter],
    lookup: Lookup | None,
) -> list[Tensor | None]:
    own = [
        torch.zeros_like(parameter) if gradient is None else gradient
        for gradient, parameter in zip(gradients, parameters, strict=True)
    ]
    sent = [
        gradient[lookup.rows] if lookup and parameter is lookup.table else gradient
        for gradient, parameter in zip(own, parameters, strict=True)
    ]
    flat = torch.cat([gradient.flatten() for gradient in sent])
    reached = torch.tensor([float(one is not None) for one in gradients], device=flat.device)
    flat = accelerator.reduce(flat, "sum")
    reached = accelerator.reduce(reached, "sum")
    parts = flat.split([one.numel() for one in sent])
    sums = [part.view_as(one) for part, one in zip(parts, sent, strict=True)]
    if lookup:
        for at, parameter in enumerate(parameters):
            if parameter is lookup.table:
                sums[at] = own[at].index_copy_(0, lookup.rows, sums[at])
    return [one if count else None for one, count in zip(sums, reached.tolist(), strict=True)]
