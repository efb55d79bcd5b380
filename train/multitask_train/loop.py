"""The training loop as a generator of steps: logging, validation and patience stand outside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim import AdamW
from transformers import get_linear_schedule_with_warmup

from multitask_train.data.batches import Batch, UpdatePlan
from multitask_train.model import MultiTaskModel, MultiTaskOutput
from multitask_train.settings import LossSettings, OptimSettings


@dataclass(frozen=True)
class Step:
    """One update: its number from 1, its epoch from 1, each task's mean loss, the encoder's
    learning rate, the gradient norm before clipping and the real tokens seen.
    """

    number: int
    epoch: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    tokens: int


def train(
    accelerator: Accelerator,
    model: MultiTaskModel,
    plan: UpdatePlan,
    optim: OptimSettings,
    loss: LossSettings,
) -> Iterator[Step]:
    """Yield after every update.

    An update runs one batch of each kind, adds up the gradients of both losses, then steps.
    """
    optimizer = make_optimizer(model, optim)
    updates = len(plan) * optim.epochs
    scheduler = get_linear_schedule_with_warmup(optimizer, int(optim.warmup * updates), updates)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    number = 0
    for epoch in range(1, optim.epochs + 1):
        for batches in plan.epoch(epoch):
            model.train()
            losses: dict[str, list[float]] = {}
            for batch in batches:
                _accumulate(accelerator, model, batch, loss, losses)
            norm = accelerator.clip_grad_norm_(model.parameters(), optim.max_grad_norm)
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            number += 1
            yield Step(
                number,
                epoch,
                {task: sum(values) / len(values) for task, values in losses.items()},
                rate,
                float(norm),
                sum(int(batch["attention_mask"].sum()) for batch in batches),
            )


def make_optimizer(model: MultiTaskModel, optim: OptimSettings) -> AdamW:
    """AdamW with a rate for the encoder and one for the heads; no decay on biases and norms."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_encoder, decays = name.startswith("encoder."), parameter.ndim > 1
        groups.setdefault((in_encoder, decays), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": optim.learning_rate if in_encoder else optim.head_learning_rate,
                "weight_decay": optim.weight_decay if decays else 0.0,
            }
            for (in_encoder, decays), parameters in groups.items()
        ],
        fused=True,
    )


def _accumulate(
    accelerator: Accelerator,
    model: MultiTaskModel,
    batch: Batch,
    weights: LossSettings,
    losses: dict[str, list[float]],
) -> None:
    """Forward and backward of one batch; its losses are added to `losses`."""
    batch = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
    with accelerator.autocast():
        output: MultiTaskOutput = model(**batch)
    parts: list[Any] = []
    for task, value, weight in (
        ("classification", output.class_loss, weights.classification),
        ("ner", output.token_loss, weights.ner),
    ):
        if value is not None:
            losses.setdefault(task, []).append(float(value.detach()))
            parts.append(weight * value)
    if parts:
        accelerator.backward(sum(parts))
