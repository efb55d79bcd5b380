"""Teachers: trained checkpoints whose answers a run imitates.

A head that never learns from one corpus's sentences answers there as chance has it, and so it does
on texts like them elsewhere. A teacher's answers hold it still (Li and Hoiem 2016, learning without
forgetting). Where labels stand, they say more than these do: which other answers are near, and
which labels are doubtful (Hinton et al. 2015; Clark et al. 2019, BAM).

A teacher reads texts as it would be served, with its own tokenizer and windows, and answers each
once, before training: an update costs no more for it. Its encoder may be another, larger one. Of
several teachers the mean is imitated, which is mostly right more often than each of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from torch import nn

from multitask_core import manifest
from multitask_core.batching import Float32
from multitask_core.decode import word_logits
from multitask_core.errors import ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_train import checkpoint
from multitask_train.data import Example
from multitask_train.data.features import Answer, Float16
from multitask_train.evaluate import text_logits
from multitask_train.settings import FitSettings

# A text's words, [W] spans, and log probabilities of their tags, [W, T].
_Tags = tuple[Sequence[tuple[int, int]], Float16]


@dataclass(frozen=True)
class Teacher:
    """One checkpoint, and the tasks whose heads are imitated."""

    pipeline: Pipeline
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Teachers:
    """All checkpoints that a run imitates; identities: a hash over those of each task.

    beside_labels: whether they are asked where a sentence has a label of its own too.
    """

    teachers: Sequence[Teacher] = ()
    identities: Mapping[str, str] = field(default_factory=dict)
    beside_labels: bool = False

    def answers(self, examples: Sequence[Example], *, progress: bool = False) -> list[Answer]:
        """What they say of each example, the mean of their probabilities. progress: show bars."""
        classes: list[list[Float16]] = [[] for _ in examples]
        tags: list[list[_Tags]] = [[] for _ in examples]
        for number, teacher in enumerate(self.teachers, 1):
            asked = [at for at, one in enumerate(examples) if self._lacking(one, teacher)]
            name = f"teacher {number} of {len(self.teachers)}" if progress else ""
            texts = [examples[at] for at in asked]
            for index, text, (whole, tokens) in text_logits(teacher.pipeline, texts, progress=name):
                at = asked[index]
                lacking = self._lacking(examples[at], teacher)
                if "classification" in lacking:
                    classes[at].append(_log_softmax(whole.mean(axis=0)))
                if "ner" in lacking:
                    tags[at].append((text.words, _log_softmax(word_logits(text, tokens))))
        return [
            Answer(_mean(of_text) if of_text else None, *_common(of_words))
            for of_text, of_words in zip(classes, tags, strict=True)
        ]

    def _lacking(self, example: Example, teacher: Teacher) -> list[str]:
        """The teacher's tasks in which the example needs an answer."""
        own = {"classification": example.label, "ner": example.entities}
        return [task for task in teacher.tasks if self.beside_labels or own[task] is None]


def _log_softmax(logits: Float32) -> Float16:
    found: Float16 = log_softmax(logits, axis=-1).astype(np.float16)
    return found


def _mean(answers: Sequence[Float16]) -> Float16:
    """Log of the mean of probabilities."""
    if len(answers) == 1:
        return answers[0]
    total = logsumexp(np.stack(answers).astype(np.float32), axis=0)
    found: Float16 = (total - np.log(len(answers))).astype(np.float16)
    return found


def _common(answers: Sequence[_Tags]) -> tuple[Sequence[tuple[int, int]], Float16 | None]:
    """The words that all teachers have, and what they say of these."""
    if not answers:
        return (), None
    rows = [{span: row for row, span in enumerate(words)} for words, _ in answers]
    words = [span for span in answers[0][0] if all(span in known for known in rows)]
    parts = [
        tags[[known[span] for span in words]]
        for (_, tags), known in zip(answers, rows, strict=True)
    ]
    return words, _mean(parts)


def load_teachers(settings: FitSettings, schema: LabelSchema, device: torch.device) -> Teachers:
    """The checkpoints that `loss` names as teachers; raises ConfigError, ArtifactError.

    schema: the student's labels.
    """
    share, named = settings.loss.teacher_share, settings.loss.teachers
    if share and not named:
        raise ConfigError(
            f"loss.teacher_share {share:g} says how much of a teacher is imitated, and none is "
            "named; give loss.ner_teacher or loss.classification_teacher"
        )
    tasks: dict[str, tuple[str, ...]] = {}
    for task, names in named.items():
        if settings.data.tasks not in (task, "both"):
            raise ConfigError(
                f"loss.{task}_teacher {', '.join(names)}: data.tasks {settings.data.tasks} trains "
                f"no {task}; leave the teacher out, or train both"
            )
        for name in dict.fromkeys(names):
            tasks[name] = (*tasks.get(name, ()), task)
    teachers: list[Teacher] = []
    identities: dict[str, list[str]] = {task: [] for task in named}
    for name, of_name in tasks.items():
        pipeline, identity = _open(name, of_name, schema, device)
        teachers.append(Teacher(pipeline, of_name))
        for task in of_name:
            identities[task].append(identity)
    hashes = {
        task: hashlib.sha256(" ".join(found).encode()).hexdigest()
        for task, found in identities.items()
    }
    return Teachers(teachers, hashes, share > 0)


def _open(
    name: str, tasks: Sequence[str], schema: LabelSchema, device: torch.device
) -> tuple[Pipeline, str]:
    """A checkpoint that can teach the tasks, on the device, and its identity."""
    folder = Path(name)
    record = manifest.read(folder, checkpoint.KIND)
    trained = record.config.get("data", {}).get("tasks", "both")
    for task in tasks:
        if trained not in (task, "both"):
            raise ConfigError(
                f"loss.{task}_teacher {name} was trained with data.tasks {trained}: it has no "
                f"{task}"
            )
    model, encoder = checkpoint.load(folder)
    for task in tasks:
        _check_labels(f"loss.{task}_teacher {name}", task, model.config.schema, schema)
    nn.Module.to(model, device)
    return checkpoint.pipeline(model, encoder), record.identity


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
