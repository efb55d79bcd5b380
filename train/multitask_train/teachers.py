"""Teachers: trained checkpoints whose answers a run imitates.

A head that never learns from one corpus's sentences answers there as chance has it, and so it does
on texts like them elsewhere. A teacher's answers hold it still (Li and Hoiem 2016, learning without
forgetting). Where labels stand, they say more than these do: which other answers are near, and
which labels are doubtful (Hinton et al. 2015; Clark et al. 2019, BAM).

A teacher reads texts as it would be served, with its own tokenizer and windows, and answers each
once, before training: an update costs no more for it. Its encoder may be another, larger one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax

from multitask_core import manifest
from multitask_core.batching import Float32
from multitask_core.decode import word_logits
from multitask_core.errors import ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_train import checkpoint
from multitask_train.data import Example
from multitask_train.data.features import TASKS, Answer, Float16
from multitask_train.evaluate import text_logits
from multitask_train.settings import FitSettings


@dataclass(frozen=True)
class Teachers:
    """The checkpoint of each task that has one, as a pipeline, and its identity.

    beside_labels: whether they are asked where a sentence has a label of its own too.
    """

    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)
    identities: Mapping[str, str] = field(default_factory=dict)
    beside_labels: bool = False

    def answers(self, examples: Sequence[Example], *, progress: bool = False) -> list[Answer]:
        """What they say of each example. progress: show a bar."""
        answers = [Answer()] * len(examples)
        for pipeline in {id(one): one for one in self.pipelines.values()}.values():
            tasks = [task for task in TASKS if self.pipelines.get(task) is pipeline]
            asked = [at for at, one in enumerate(examples) if self._lacking(one, tasks)]
            name = f"teacher of {' and '.join(tasks)}" if progress else ""
            texts = [examples[at] for at in asked]
            for number, text, (classes, tokens) in text_logits(pipeline, texts, progress=name):
                at = asked[number]
                lacking = self._lacking(examples[at], tasks)
                if "classification" in lacking:
                    answers[at] = replace(answers[at], classes=_log_softmax(classes.mean(axis=0)))
                if "ner" in lacking:
                    tags = _log_softmax(word_logits(text, tokens))
                    answers[at] = replace(answers[at], words=text.words, tags=tags)
        return answers

    def _lacking(self, example: Example, tasks: Sequence[str]) -> list[str]:
        """Those of the tasks for which the example needs an answer."""
        own = {"classification": example.label, "ner": example.entities}
        return [task for task in tasks if self.beside_labels or own[task] is None]


def _log_softmax(logits: Float32) -> Float16:
    found: Float16 = log_softmax(logits, axis=-1).astype(np.float16)
    return found


def load_teachers(settings: FitSettings, schema: LabelSchema, device: torch.device) -> Teachers:
    """The checkpoints that `loss` names as teachers; raises ConfigError, ArtifactError.

    schema: the student's labels.
    """
    share = settings.loss.teacher_share
    if share and not settings.loss.teachers:
        raise ConfigError(
            f"loss.teacher_share {share:g} says how much of a teacher is imitated, and none is "
            "named; give loss.ner_teacher or loss.classification_teacher"
        )
    pipelines: dict[str, Pipeline] = {}
    identities: dict[str, str] = {}
    opened: dict[Path, Pipeline] = {}
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
        if folder not in opened:
            model, encoder = checkpoint.load(folder)
            opened[folder] = checkpoint.pipeline(model.to(device), encoder)
        _check_labels(setting, task, opened[folder].schema, schema)
        pipelines[task], identities[task] = opened[folder], record.identity
    return Teachers(pipelines, identities, share > 0)


def _check_labels(setting: str, task: str, teacher: LabelSchema, student: LabelSchema) -> None:
    theirs, ours = (_labels(task, schema) for schema in (teacher, student))
    if theirs != ours:
        raise ConfigError(
            f"{setting} knows other labels than the training data: "
            f"{_few(set(ours) - set(theirs))} are not its own, {_few(set(theirs) - set(ours))} not "
            "the data's; train it with the same data.train, and data.tasks for its task alone"
        )


def _labels(task: str, schema: LabelSchema) -> tuple[str, ...]:
    return schema.classes if task == "classification" else schema.entity_types


def _few(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (" …" if len(listed) > 4 else "") if listed else "none"
