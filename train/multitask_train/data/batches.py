"""Features → updates: which windows are learned from together, and by which process.

A batch holds windows of one kind: jointly labelled, classified only, or tagged only; where a window
has no label, what teachers answer says its kind. The schedule says which kinds an update takes:

    round-robin    one batch of each kind in turn; the shorter corpora start again
    proportional   as many batches as there are kinds, from all in random order: every window once
    temperature    as many, each of a kind drawn with probability size^(1/T)

With `data.tasks` naming one head, an epoch holds as many of its windows as one of both heads does:
joint training and its baselines have the same budget.

Everything is a function of settings, seed and epoch: an interrupted run goes on with the same
batches, and N processes with batch size B learn from the same windows as one with N * B.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multitask_core.batching import pad_rows
from multitask_train.data.features import IGNORED, TASKS, Feature, only
from multitask_train.settings import FitSettings

KINDS = ("joint", "classification", "ner")
_LEAST_POOLED, _MOST_POOLED = 8, 64

Batch = dict[str, Tensor]
_Rows = list[Feature]


class AnswerCounts(NamedTuple):
    """How many answers of a teacher stand beside labels, and how many where labels are lacking."""

    beside: int
    instead: int


@dataclass(frozen=True)
class Update:
    """What one step of the optimiser learns from.

    batches: this process's share, run one after the other. counts: labels of each task in all
    processes' batches together (the sum of their class weights where there are any), by which
    losses are divided. answers: likewise the numbers of a teacher's answers, beside labels and in
    their place. tokens: real tokens of all processes. pieces: the ids that they hold, each
    once, INT64 [K]; None where one process is alone.
    """

    batches: list[Batch]
    counts: dict[str, float]
    answers: dict[str, AnswerCounts]
    tokens: int
    pieces: Tensor | None

    @property
    def tasks(self) -> list[str]:
        """The tasks that it teaches, always in the same order."""
        return sorted({*self.counts, *self.answers})


class UpdatePlan:
    """The updates of every epoch for one of `processes` processes.

    features: of all corpora, also where `data.tasks` trains one head; those that teach nothing are
    left out. class_weights: the weight of each class in the sentence loss, 1 where None. answers:
    those that teachers give in all windows. Raises DataError where no window has the labels.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        settings: FitSettings,
        *,
        pad_id: int,
        processes: int = 1,
        rank: int = 0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        self._data, self._seed = settings.data, settings.run.seed
        features = only(features, "both")
        tasks = TASKS if self._data.tasks == "both" else (self._data.tasks,)
        self._heads = {one.kind for one in features if any(map(one.teaches, tasks))}
        self._groups = _by_kind(only(features, self._data.tasks))
        self._sizes = {kind: len(group) for kind, group in _by_kind(features).items()}
        self._micro = settings.optim.batch_size * processes
        self._rows = self._micro * settings.optim.accumulation
        self._pad_id, self._shard = pad_id, slice(rank, None, processes)
        self._class_weights = class_weights
        self._share = settings.loss.teacher_share
        self.answers = _answers([row for group in self._groups.values() for row in group])

    def __len__(self) -> int:
        """Updates in an epoch."""
        if self._data.schedule == "proportional":
            batches = float(sum(self._count(size) for size in self.sizes.values()))
        else:
            shown = self._shown()
            batches = sum(shown[kind] for kind in self._heads)
        return math.ceil(round(batches / len(self._groups), 6))

    def _count(self, windows: int) -> int:
        return -(-windows // self._rows)

    def _shown(self) -> dict[str, float]:
        """Batches of each kind that an epoch of both heads shows, as expected where drawn."""
        batches = {kind: self._count(size) for kind, size in self._sizes.items()}
        if self._data.schedule == "round-robin":
            return dict.fromkeys(batches, float(max(batches.values())))
        shares = {kind: size ** (1 / self._data.temperature) for kind, size in self._sizes.items()}
        scale = sum(batches.values()) / sum(shares.values())
        return {kind: share * scale for kind, share in shares.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Windows of each kind."""
        return {kind: len(group) for kind, group in self._groups.items()}

    def epoch(self, number: int, start: int = 0) -> Iterator[Update]:
        """Yield an epoch's updates, without the first `start`."""
        for groups in islice(self._schedule(number), start, len(self)):
            yield self._update(groups)

    def _schedule(self, epoch: int) -> Iterator[list[_Rows]]:
        batches = {
            kind: _batches(group, self._rows, self._order(epoch, kind))
            for kind, group in self._groups.items()
        }
        if self._data.schedule == "round-robin":
            yield from map(list, zip(*map(cycle, batches.values()), strict=True))
        order = self._order(epoch, "schedule")
        if self._data.schedule == "proportional":
            every = [batch for group in batches.values() for batch in group]
            order.shuffle(every)
            for first in range(0, len(every), len(batches)):
                yield every[first : first + len(batches)]
        else:
            streams = {kind: cycle(group) for kind, group in batches.items()}
            shares = [len(group) ** (1 / self._data.temperature) for group in self._groups.values()]
            while True:
                kinds = order.choices(list(streams), shares, k=len(streams))
                yield [next(streams[kind]) for kind in kinds]

    def _order(self, epoch: int, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{epoch}/{name}")  # noqa: S311  no secret

    def _update(self, groups: list[_Rows]) -> Update:
        rows = [row for group in groups for row in group]
        shares = [
            group[first : first + self._micro][self._shard]
            for group in groups
            for first in range(0, len(group), self._micro)
        ]
        answers = _answers(rows) if self.answers else {}
        weights = {
            task: (self._share / max(1, found.beside), 1 / max(1, found.instead))
            for task, found in answers.items()
        }
        return Update(
            [collate(share, self._pad_id, weights) for share in shares if share],
            self._counts(rows),
            answers,
            sum(len(row.input_ids) for row in rows),
            self._pieces(rows),
        )

    def _pieces(self, rows: _Rows) -> Tensor | None:
        if self._shard.step == 1:
            return None
        return torch.tensor(sorted({self._pad_id}.union(*(row.input_ids for row in rows))))

    def _counts(self, rows: _Rows) -> dict[str, float]:
        classes = [row.class_label for row in rows if row.class_label != IGNORED]
        weights = self._class_weights
        counts = {
            "classification": sum(weights[one] for one in classes) if weights else len(classes),
            "ner": sum(row.tagged for row in rows),
        }
        return {task: float(count) for task, count in counts.items() if count}


def _answers(rows: _Rows) -> dict[str, AnswerCounts]:
    found: dict[str, AnswerCounts] = {}
    for task in TASKS:
        counts = [(len(row.answers(task)), row.labelled(task)) for row in rows]
        beside = sum(count for count, labelled in counts if labelled)
        if total := sum(count for count, _ in counts):
            found[task] = AnswerCounts(beside, total - beside)
    return found


def _by_kind(features: Sequence[Feature]) -> dict[str, _Rows]:
    """The kinds that occur, in the order of KINDS."""
    groups = {kind: [one for one in features if one.kind == kind] for kind in KINDS}
    return {kind: group for kind, group in groups.items() if group}


def collate(
    features: Sequence[Feature],
    pad_id: int,
    weights: Mapping[str, tuple[float, float]] | None = None,
) -> Batch:
    """Features → tensors named as the model's arguments, [B, L] and [B].

    weights: for each task whose teacher is imitated, the weight of one answer beside labels and of
    one in their place. For these tasks come, where a feature has an answer, its log probabilities
    `TASK_answers` [N, C or T], its place `TASK_places` [N] in B or B * L, and `TASK_weights` [N].
    """
    input_ids, attention_mask = pad_rows([one.input_ids for one in features], pad_id)
    token_labels, _ = pad_rows([one.token_labels for one in features], IGNORED)
    batch = {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(attention_mask),
        "class_labels": torch.tensor([one.class_label for one in features]),
        "token_labels": torch.from_numpy(token_labels),
    }
    for task, (beside, instead) in (weights or {}).items():
        width = input_ids.shape[1] if task == "ner" else 1
        found = [
            (row * width + place, answer, beside if one.labelled(task) else instead)
            for row, one in enumerate(features)
            for place, answer in one.answers(task)
        ]
        if found:
            places, answers, shares = zip(*found, strict=True)
            batch[f"{task}_places"] = torch.tensor(places)
            batch[f"{task}_answers"] = torch.from_numpy(np.stack(answers))
            batch[f"{task}_weights"] = torch.tensor(shares)
    return batch


def pool_batches(windows: int, batch_size: int) -> int:
    """Batches in a pool: windows are shuffled, then sorted by length within pools.

    Large pools leave little padding (2.5 % of SNIPS); four of them still make different batches in
    every epoch.
    """
    return min(_MOST_POOLED, max(_LEAST_POOLED, windows // batch_size // 4))


def _batches(features: Sequence[Feature], rows: int, order: random.Random) -> list[_Rows]:
    shuffled = list(features)
    order.shuffle(shuffled)
    pool = rows * pool_batches(len(shuffled), rows)
    batches: list[_Rows] = []
    for first in range(0, len(shuffled), pool):
        part = sorted(shuffled[first : first + pool], key=lambda one: len(one.input_ids))
        batches.extend(part[at : at + rows] for at in range(0, len(part), rows))
    order.shuffle(batches)
    return batches
