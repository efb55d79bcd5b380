"""The training loop as a generator of steps: logging, validation and patience stand outside it.

Several processes (`accelerate launch`) each run their share of an update's batches; gradients are
summed once before the step. A task's loss is its mean over all labels of the update, so neither the
number of processes nor that of batches in an update changes what is computed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_scheduler

from multitask_core.errors import TrainingError
from multitask_train.balancing import make_balancer
from multitask_train.balancing.base import Needs, Weights
from multitask_train.data.batches import Batch, Update, UpdatePlan
from multitask_train.dropout import quicken_dropout
from multitask_train.gradients import Lookup, TaskGradients, sum_over_processes
from multitask_train.losses import TaskLosses
from multitask_train.model import MultiTaskModel, MultiTaskOutput
from multitask_train.settings import FitSettings
from multitask_train.strategies import Strategy

log = logging.getLogger(__name__)

_Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Step:
    """One update: its number from 1, its epoch from 1, each task's mean loss and weight, the
    learning rate of the topmost layer that trains in the encoder (else the heads'), the gradient
    norm before clipping and the real tokens of all processes.
    """

    number: int
    epoch: int
    losses: dict[str, float]
    weights: dict[str, float]
    learning_rate: float
    gradient_norm: float
    tokens: int


class Learner:
    """Model, optimiser, schedule and balancer at one point of a run.

    class_weights: see TaskLosses.
    `stopping` turns true in all processes after one of them has called `request_stop`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: MultiTaskModel,
        plan: UpdatePlan,
        settings: FitSettings,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        optim = settings.optim
        quicken_dropout(model)
        self.model = model.to(accelerator.device)
        self.plan, self.total = plan, len(plan) * optim.epochs
        self.number, self.stopping = 0, False
        self.strategy = Strategy(model, optim, len(plan))
        self._accelerator, self._optim = accelerator, optim
        self._balancer = make_balancer(settings)
        loss = settings.loss
        self._losses = TaskLosses(loss.label_smoothing, class_weights, loss.teacher_shares)
        groups = self.strategy.groups(optim.weight_decay)
        self._rate_of = next(
            (at for at, group in enumerate(groups) if group["depth"]), len(groups) - 1
        )
        optimizer = AdamW(groups, fused=True)
        schedule = "constant_with_warmup" if optim.schedule == "constant" else optim.schedule
        warmup = int(optim.warmup * self.total)
        self._scheduler = get_scheduler(schedule, optimizer, warmup, self.total)
        self._optimizer = accelerator.prepare(optimizer)
        self._average = _moving_average(self.model, optim.ema_decay) if optim.ema_decay else None
        self._stop_requested = False
        if accelerator.scaler:  # which makes its scale at the first loss, and a share may have none
            accelerator.scaler.scale(torch.zeros((), device=accelerator.device))

    @property
    def kept(self) -> MultiTaskModel:
        """What is validated and kept: the weights' moving average where there is one."""
        return cast(MultiTaskModel, self._average.module) if self._average else self.model

    def request_stop(self) -> None:
        """Ask to stop: at once where this process is alone, else all after the next update."""
        self._stop_requested = True
        self.stopping |= self._accelerator.num_processes == 1

    def steps(self) -> Iterator[Step]:
        """Yield after every update, from where the run stands to its end."""
        while self.number < self.total:
            epoch, done = divmod(self.number, len(self.plan))
            self._balancer.begin(epoch + 1)
            for update in self.plan.epoch(epoch + 1, done):
                yield self._step(epoch + 1, update)

    def state(self) -> dict[str, Any]:
        """All that the next update depends on, besides the random number generators."""
        scaler = self._accelerator.scaler
        return {
            "number": self.number,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "balancer": self._balancer.state(),
            "scaler": scaler.state_dict() if scaler else {},
            "average": self._average.state_dict() if self._average else {},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken."""
        self.number = state["number"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._balancer.restore(state["balancer"])
        if self._accelerator.scaler:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load_state_dict(state["average"])

    def _step(self, epoch: int, update: Update) -> Step:
        for name in self.strategy.advance(self.number):
            log.info("update %d: %s begins to train", self.number + 1, name)
        self.strategy.train_mode()
        self.number += 1
        losses, weights = self._backward(update)
        norm = float(
            self._accelerator.clip_grad_norm_(self.model.parameters(), self._optim.max_grad_norm)
        )
        rate = self._scheduler.get_last_lr()[self._rate_of]
        self._check(losses, norm, rate)
        self._optimizer.step()
        if math.isfinite(norm):  # else fp16's scaler has skipped the step and lowers its scale
            self._scheduler.step()
            if self._average:
                self._average.update_parameters(self.model)
            self._tell(losses, update)
        self._optimizer.zero_grad()
        return Step(self.number, epoch, losses, weights, rate, norm, update.tokens)

    def _check(self, losses: Mapping[str, float], norm: float, rate: float) -> None:
        """Raise TrainingError before a step that would ruin the weights for good."""
        bad = [f"the loss of {task} is {loss}" for task, loss in losses.items()
               if not math.isfinite(loss)]  # fmt: skip
        if not math.isfinite(norm) and not self._accelerator.scaler:
            bad.append(f"the gradients' norm is {norm}")
        if bad:
            raise TrainingError(
                f"update {self.number} of {self.total}: {' and '.join(bad)}, at the learning rate "
                f"{rate:.1e}: training has diverged. Lower optim.learning_rate and "
                "optim.head_learning_rate, lengthen optim.warmup, or use optim.precision bf16 or "
                "no instead of fp16; then begin anew with --run.overwrite true"
            )

    def _tell(self, losses: dict[str, float], update: Update) -> None:
        """Let the balancer see what the step did."""
        if self._balancer.looks_twice:
            with torch.no_grad():
                self._balancer.observe_after(self._mean(self._forward_all(update), update))
        self._balancer.observe(losses)

    def _backward(self, update: Update) -> tuple[dict[str, float], Weights]:
        """Leave the update's gradients in the parameters; losses and weights of its tasks."""
        if self._balancer.needs is Needs.GRADIENTS:
            return self._backward_by_task(update)
        tasks = update.tasks
        if self._balancer.needs is Needs.LOSSES:
            held = self._forward_all(update)
            losses = self._mean(held, update)
            weights = self._balancer.weights(tasks, self.number, losses, None)
            self._run_backward(held, weights)
        else:
            weights = self._balancer.weights(tasks, self.number, None, None)
            sums: list[dict[str, Tensor]] = []
            for batch in update.batches:
                parts = self._forward(batch, update)
                sums.append({task: part.detach() for task, part in parts.items()})
                self._run_backward([parts], weights)
            losses = self._mean(sums, update)
        sum_over_processes(self._accelerator, self._trained(), self._lookup(update))
        return losses, weights

    def _backward_by_task(self, update: Update) -> tuple[dict[str, float], Weights]:
        tasks = update.tasks
        gradients = TaskGradients(tasks, self._trained(), self._shared())
        sums: list[dict[str, Tensor]] = []
        for batch in update.batches:
            parts = self._forward(batch, update)
            gradients.add(parts)
            sums.append({task: part.detach() for task, part in parts.items()})
        losses = self._mean(sums, update)
        gradients.sum_over_processes(self._accelerator, self._lookup(update))
        weights = self._balancer.weights(tasks, self.number, losses, gradients.gramian())
        gradients.combine(weights)
        return losses, weights

    def _run_backward(self, parts: Sequence[Mapping[str, Tensor]], weights: Weights) -> None:
        weighed = [weights[task] * loss for part in parts for task, loss in part.items()]
        if weighed:
            self._accelerator.backward(torch.stack(weighed).sum())

    def _forward_all(self, update: Update) -> list[dict[str, Tensor]]:
        return [self._forward(batch, update) for batch in update.batches]

    def _forward(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        """This batch's part of each task's mean loss."""
        device = self._accelerator.device
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        with self._accelerator.autocast():
            output: MultiTaskOutput = self.model(batch["input_ids"], batch["attention_mask"])
        return self._losses(output, batch, update.counts)

    def _mean(self, parts: Sequence[Mapping[str, Tensor]], update: Update) -> dict[str, float]:
        """The tasks' losses over all processes; also agrees on whether to stop."""
        device = self._accelerator.device
        zero = torch.zeros((), device=device)
        sums = [
            sum((part[task].detach() for part in parts if task in part), zero)
            for task in update.tasks
        ]
        stop = torch.tensor(float(self._stop_requested), device=device)
        reduced = self._accelerator.reduce(torch.stack([*sums, stop]), "sum")
        *values, stops = reduced.tolist()
        self.stopping = stops > 0
        return dict(zip(update.tasks, values, strict=True))

    def _trained(self) -> list[torch.nn.Parameter]:
        return [one for one in self.model.parameters() if one.requires_grad]

    def _lookup(self, update: Update) -> Lookup | None:
        if update.pieces is None:
            return None
        table: torch.nn.Parameter = self.model.encoder.get_input_embeddings().weight
        return Lookup(table, update.pieces.to(self._accelerator.device))

    def _shared(self) -> list[torch.nn.Parameter]:
        return [one for one in self.model.encoder.parameters() if one.requires_grad]


def _moving_average(model: MultiTaskModel, decay: float) -> AveragedModel:
    """A copy whose weights follow the model's by 1 - decay an update.

    At first by more, so that the heads' random start is forgotten in a short run too.
    """

    @torch.no_grad()
    def follow(average: _Tensors, current: _Tensors, updates: Tensor | int) -> None:
        now = min(decay, (1 + int(updates)) / (10 + int(updates)))
        get_ema_multi_avg_fn(now)(average, current, updates)

    averaged = AveragedModel(model, multi_avg_fn=follow)
    averaged.requires_grad_(False)
    return averaged


def train(
    accelerator: Accelerator, model: MultiTaskModel, plan: UpdatePlan, settings: FitSettings
) -> Iterator[Step]:
    """A whole run's steps, with nothing kept for resuming."""
    yield from Learner(accelerator, model, plan, settings).steps()
