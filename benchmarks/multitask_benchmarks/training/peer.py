"""The peer's side: `transformers.Trainer` as its documentation shows it.

Same model, windows, padding to the longest row of a batch, batch size, precision and rates. What
differs is the Trainer's own: sampler, data loader, loop, and, with several processes,
DistributedDataParallel. `trainer-grouped` adds its own remedy against padding, `group_by_length`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from multitask_benchmarks.training.jobs import GROUPED, Job, Report, Work
from multitask_benchmarks.training.meter import Meter, batch_work
from multitask_train.data.batches import Batch, collate
from multitask_train.data.features import Feature
from multitask_train.model import MultiTaskModel
from multitask_train.settings import FitSettings


def run(job: Job, model: MultiTaskModel, features: Sequence[Feature]) -> Report:
    """Train until the timed updates are over."""
    meter = Meter(job.warmup, job.updates)
    collator = _Collator(job.pad_id)
    trainer = Trainer(
        model=model,
        args=make_arguments(job, joint=all(one.kind == "joint" for one in features)),
        data_collator=collator,
        train_dataset=_Rows(features),
        callbacks=[_Clock(meter)],
    )
    trainer.train()
    logs = [one for one in trainer.state.log_history if "loss" in one]
    norms = [one["grad_norm"] for one in logs]
    return meter.report(collator.work, [one["loss"] for one in logs], norms)


def make_arguments(job: Job, *, joint: bool = True) -> TrainingArguments:
    """The Trainer's defaults; no files, no logs, and the optimiser's numbers as `fit` has them.

    joint: every window trains both heads. Several processes then need not look for parameters
    without a gradient, which the Trainer does unless told, at each update.
    """
    optim = FitSettings().optim
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=job.folder,
        max_steps=job.warmup + job.updates,
        per_device_train_batch_size=job.batch_size,
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        warmup_ratio=0.0 if job.exact else optim.warmup,
        lr_scheduler_type="constant" if job.exact else optim.schedule,
        group_by_length=job.side == GROUPED,
        bf16=job.precision == "bf16",
        fp16=job.precision == "fp16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        ddp_find_unused_parameters=not joint,
        seed=job.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="steps" if job.exact else "no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )


class _Rows(Dataset[dict[str, Any]]):
    """Windows as the Trainer wants them: dictionaries, of which it reads the lengths itself."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._rows = [
            {
                "input_ids": one.input_ids,
                "class_labels": one.class_label,
                "token_labels": one.token_labels,
            }
            for one in features
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class _Collator:
    """Pads as this package does; remembers what every batch held, in the order of the updates."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id
        self.work: list[Work] = []

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        features = [
            Feature(row["input_ids"], row["class_labels"], row["token_labels"]) for row in rows
        ]
        batch = collate(features, self._pad_id)
        self.work.append(batch_work(batch))
        return batch


class _Clock(TrainerCallback):
    """Tells the meter of every update."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> TrainerControl:
        """After each update."""
        control.should_training_stop = self._meter.updated(state.global_step)
        return control
