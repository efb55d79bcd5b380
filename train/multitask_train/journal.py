"""What people see of a run: the progress line, the TensorBoard log, the history for the curves."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from multitask_train import checkpoint
from multitask_train.data.features import TASKS
from multitask_train.evaluate import describe
from multitask_train.loop import Step
from multitask_train.settings import FitSettings

log = logging.getLogger(__name__)

# Updates in the history; longer runs keep every n-th.
POINTS = 2000
# A task stalls when its loss fell by less than this share in an epoch, this much above its least.
_STALL_SHARE, _STALL_LOSS = 0.01, 0.05
# A task starves when a balancer leaves it less than this share of an epoch's weight.
_STARVING_SHARE = 0.1
_METRICS = {"classification": "accuracy", "ner": "f1"}


class Journal:
    """Follows a run of `updates` an epoch; `start` is the update from which it goes on.

    disable: keep the clock alone, in processes that do not lead. history: {"updates": [...],
    "epochs": [...]}, see train/README.md. least: see `stalled`.
    """

    def __init__(
        self,
        settings: FitSettings,
        updates: int,
        start: int,
        history: Mapping[str, Any] | None,
        *,
        disable: bool = False,
        least: Mapping[str, float] | None = None,
    ) -> None:
        self.history: dict[str, list[dict[str, Any]]] = {"updates": [], "epochs": []}
        self.history |= dict(history or {})
        self._least, self._balancer = least or {}, settings.loss.balancer
        self._total = updates * settings.optim.epochs
        self._epochs, self._every = settings.optim.epochs, max(1, self._total // POINTS)
        self._writer: SummaryWriter | None = None
        if not disable:
            logs = str(settings.run.output / checkpoint.LOGS)
            self._writer = SummaryWriter(logs, purge_step=start + 1 if start else 0)
        self._bar: tqdm[Any] = tqdm(
            total=self._total,
            initial=start,
            unit="update",
            mininterval=1,
            smoothing=0.05,
            disable=disable,
        )
        self._tokens, self._started = 0, time.perf_counter()
        self._means: dict[str, float] = {}
        # Of each task, the running epoch's sums of losses and weights, and their count.
        (self._sums,) = self.history.pop("running", None) or [{}]

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._writer:
            self._writer.close()

    @property
    def state(self) -> dict[str, Any]:
        """The history, with what going on within an epoch needs."""
        return {**self.history, "running": [self._sums]}

    @property
    def seconds(self) -> float:
        """Since this process began to train."""
        return time.perf_counter() - self._started

    def step(self, step: Step) -> None:
        """Log one update."""
        self._tokens += step.tokens
        for task, value in step.losses.items():
            self._means[task] = 0.95 * self._means.get(task, value) + 0.05 * value
            total, weight, count = self._sums.get(task, (0.0, 0.0, 0))
            self._sums[task] = (total + value, weight + step.weights[task], count + 1)
            self._scalar(f"train/loss/{task}", value, step.number)
            self._scalar(f"train/weight/{task}", step.weights[task], step.number)
        self._scalar("train/learning_rate", step.learning_rate, step.number)
        self._scalar("train/gradient_norm", step.gradient_norm, step.number)
        if step.number % self._every == 0:
            self.history["updates"].append(_point(step))
        self._bar.set_description(f"epoch {step.epoch}/{self._epochs}", refresh=False)
        losses = {f"loss {task}": f"{value:.3f}" for task, value in self._means.items()}
        speed = f"{self._tokens / self.seconds:,.0f}"
        rate = f"{step.learning_rate:.1e}"
        self._bar.set_postfix({**losses, "rate": rate, "tokens/s": speed}, refresh=False)
        self._bar.update()

    def validated(
        self, epoch: int, update: int, metrics: Mapping[str, Any], seconds: float
    ) -> None:
        """Log dev metrics after an epoch, or of the start as epoch 0; seconds: of the run."""
        for task in (*TASKS, "joint"):
            for name, value in (metrics[task] or {}).items():
                if isinstance(value, float):
                    self._scalar(f"dev/{task}/{name}", value, update)
        means = {task: total / count for task, (total, _, count) in self._sums.items()}
        weights = {task: weight / count for task, (_, weight, count) in self._sums.items()}
        self._sums = {}
        self.history["epochs"].append(
            {
                "epoch": epoch,
                "update": update,
                "dev": metrics,
                "losses": means,
                "weights": weights,
                "seconds": round(seconds, 1),
            }
        )
        losses = ", ".join(f"{task} {value:.3f}" for task, value in means.items())
        opening = f"epoch {epoch}: losses {losses};" if epoch else "as started from:"
        tqdm.write(f"{opening} dev {describe(metrics)}", file=sys.stderr)
        warnings = stalled(self.history["epochs"], self._least)
        if self._balancer != "static":  # whose weights were chosen
            warnings += starved(self.history["epochs"][-1], self._least, self._balancer)
        for warning in warnings:
            log.warning("%s", warning)

    def _scalar(self, name: str, value: float, update: int) -> None:
        if self._writer:
            self._writer.add_scalar(name, value, update)


def stalled(epochs: list[dict[str, Any]], least: Mapping[str, float] | None = None) -> list[str]:
    """A warning for each task that learned nothing in the last epoch while it had much to learn.

    Its training loss is over 0.05 above its least (with label smoothing that is not 0) and came
    less than 1 % nearer to it, and its dev metric did not rise and is not perfect.
    """
    if len(epochs) < 2:
        return []
    before, now = epochs[-2:]
    warnings = []
    for task, metric in _METRICS.items():
        if task not in now["losses"] or task not in before["losses"]:
            continue
        loss, last = now["losses"][task], before["losses"][task]
        score = (now["dev"][task] or {}).get(metric, 0.0)
        best = max((one["dev"][task] or {}).get(metric, 0.0) for one in epochs[:-1])
        floor = (least or {}).get(task, 0.0)
        far = loss - floor > max(_STALL_LOSS, (1 - _STALL_SHARE) * (last - floor))
        if far and score <= best and score < 1:
            warnings.append(
                f"{task} stalls: its loss went from {last:.3f} to {loss:.3f} in epoch "
                f"{now['epoch']} and {metric} stays at {100 * score:.2f}; look at its curve, and "
                "at loss.balancer and the learning rates if this goes on"
            )
    return warnings


def starved(epoch: dict[str, Any], least: Mapping[str, float], balancer: str) -> list[str]:
    """A warning for each task with much to learn that had next to no weight in an epoch."""
    total = sum(epoch["weights"].values())
    return [
        f"{task} starves: loss.balancer {balancer} gave it {weight / total:.1%} of the weight in "
        f"epoch {epoch['epoch']}, with its loss at {epoch['losses'][task]:.3f}; `equal` or "
        "`static` would let it learn"
        for task, weight in epoch["weights"].items()
        if weight < _STARVING_SHARE * total
        and epoch["losses"][task] - least.get(task, 0.0) > _STALL_LOSS
    ]


def _point(step: Step) -> dict[str, Any]:
    """For the history; an update that fp16's scaler skipped has no norm that JSON could hold."""
    return {
        "update": step.number,
        "epoch": step.epoch,
        "losses": step.losses,
        "weights": step.weights,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm if math.isfinite(step.gradient_norm) else None,
        "tokens": step.tokens,
    }
