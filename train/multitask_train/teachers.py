"""Teachers: trained checkpoints that answer where a sentence has no label for one of the heads.

A head that never learns from one corpus's sentences answers there as chance has it, and so it does
on texts like them elsewhere. A teacher's answers hold it still: the task's loss gains the mean
Kullback-Leibler divergence from the teacher's distribution at the places that lack a label.
Source: Li and Hoiem 2016 (learning without forgetting), Clark et al. 2019 (BAM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from multitask_core import manifest
from multitask_core.errors import ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.text import TextEncoder
from multitask_train import checkpoint
from multitask_train.data.batches import Batch
from multitask_train.data.features import IGNORED
from multitask_train.model import MultiTaskModel, MultiTaskOutput
from multitask_train.settings import FitSettings


@dataclass(frozen=True)
class Teachers:
    """A model for each task that has one, and the identity of each one's checkpoint.

    Calling it gives, for each task with a teacher whose labels a batch lacks somewhere, the
    divergence summed over those places, FP32.
    """

    models: Mapping[str, MultiTaskModel] = field(default_factory=dict)
    identities: Mapping[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> None:
        """Move the models there, in evaluation mode."""
        for model in self.models.values():
            nn.Module.to(model, device)
            model.train(mode=False).requires_grad_(False)

    def __call__(self, output: MultiTaskOutput, batch: Batch) -> dict[str, Tensor]:
        """output: what the student answers to the batch."""
        sums: dict[str, Tensor] = {}
        for task, model in self.models.items():
            lacking = _lacking(task, batch)
            if bool(lacking.any()):
                with torch.no_grad():
                    answer = model(batch["input_ids"], batch["attention_mask"])
                sums[task] = nn.functional.kl_div(
                    _logits(task, output)[lacking].float().log_softmax(-1),
                    _logits(task, answer)[lacking].float().log_softmax(-1),
                    reduction="sum",
                    log_target=True,
                )
        return sums


def load_teachers(settings: FitSettings, student: MultiTaskModel, encoder: TextEncoder) -> Teachers:
    """The checkpoints that `loss` names as teachers; raises ConfigError, ArtifactError."""
    models, identities = {}, {}
    for task, name in settings.loss.teachers.items():
        folder, setting = Path(name), f"loss.{task}_teacher {name}"
        if settings.data.tasks not in (task, "both"):
            raise ConfigError(
                f"{setting}: data.tasks {settings.data.tasks} trains no {task}; leave the teacher "
                "out, or train both"
            )
        record = manifest.read(folder, checkpoint.KIND)
        trained = record.config.get("data", {}).get("tasks", "both")
        if trained not in (task, "both"):
            raise ConfigError(f"{setting} was trained with data.tasks {trained}: it has no {task}")
        models[task], reader = checkpoint.load(folder)
        _check(setting, task, models[task], student)
        if not reader.cuts_like(encoder):
            raise ConfigError(
                f"{setting} reads texts with another tokenizer than model.encoder "
                f"{settings.model.encoder}; name a teacher that was trained from the same one"
            )
        identities[task] = record.identity
    return Teachers(models, identities)


def _check(setting: str, task: str, teacher: MultiTaskModel, student: MultiTaskModel) -> None:
    theirs, ours = (_labels(task, model) for model in (teacher, student))
    if theirs != ours:
        raise ConfigError(
            f"{setting} knows other labels than the training data: "
            f"{_few(set(ours) - set(theirs))} are not its own, {_few(set(theirs) - set(ours))} not "
            "the data's; train it with the same data.train, and data.tasks for its task alone"
        )
    length, window = teacher.config.window_length, student.config.window_length
    if length < window:
        raise ConfigError(
            f"{setting} reads windows of {length} pieces, and model.max_length is {window}; give "
            "it no more than the teacher's"
        )


def _labels(task: str, model: MultiTaskModel) -> tuple[str, ...]:
    schema: LabelSchema = model.config.schema
    return schema.classes if task == "classification" else schema.entity_types


def _few(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (" …" if len(listed) > 4 else "") if listed else "none"


def _logits(task: str, output: MultiTaskOutput) -> Tensor:
    """[B, C] or [B, L, T]."""
    logits = output.class_logits if task == "classification" else output.token_logits
    assert logits is not None
    return logits


def _lacking(task: str, batch: Batch) -> Tensor:
    """Where the batch has no label of the task, [B] or [B, L]."""
    return batch["class_labels"] == IGNORED if task == "classification" else batch["untagged"]
