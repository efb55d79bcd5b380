"""This package's side: the plan and the loop that `multitask_train fit` runs, without its logs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

from accelerate.utils import set_seed

from multitask_benchmarks.training.jobs import Job, Report, Work
from multitask_benchmarks.training.meter import Meter, batch_work
from multitask_core.config import parse
from multitask_train.data.batches import UpdatePlan
from multitask_train.data.features import Feature
from multitask_train.loop import train
from multitask_train.model import MultiTaskModel
from multitask_train.processes import keep_freed_memory, make_accelerator
from multitask_train.settings import FitSettings


def run(job: Job, model: MultiTaskModel, features: Sequence[Feature]) -> Report:
    """Train until the timed updates are over."""
    keep_freed_memory()
    accelerator = make_accelerator(job.precision)
    set_seed(job.seed, device_specific=True)
    plan = UpdatePlan(
        features,
        make_settings(job),
        pad_id=job.pad_id,
        processes=accelerator.num_processes,
        rank=accelerator.process_index,
    )
    updates = job.warmup + job.updates
    epochs = -(-updates // len(plan))
    work = _work(plan, epochs, updates)
    losses: list[float] = []
    norms: list[float] = []
    meter = Meter(job.warmup, job.updates)
    for step in train(accelerator, model, plan, make_settings(job, epochs)):
        if job.exact:
            losses.append(sum(step.weights[task] * loss for task, loss in step.losses.items()))
            norms.append(step.gradient_norm)
        if meter.updated(step.number):
            break
    return meter.report(work, losses, norms)


def make_settings(job: Job, epochs: int = 1) -> FitSettings:
    """The defaults of `fit`, with one rate for encoder and heads, as the Trainer has it."""
    optim: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": job.batch_size,
        "precision": job.precision,
        "head_learning_rate": FitSettings().optim.learning_rate,
    }
    if job.exact:
        optim |= {"schedule": "constant", "warmup": 0.0}
    values = {"optim": optim, "run": {"seed": job.seed}}
    return parse(FitSettings, values, "the benchmark's settings")


def _work(plan: UpdatePlan, epochs: int, updates: int) -> list[Work]:
    """What this process will learn from, update by update: a plan gives the same each time."""
    planned = chain.from_iterable(plan.epoch(epoch) for epoch in range(1, epochs + 1))
    return [
        Work.total([batch_work(batch) for batch in update.batches])
        for update in islice(planned, updates)
    ]
