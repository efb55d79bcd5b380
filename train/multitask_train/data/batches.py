"""Features → updates: in each, one batch of every kind of corpus, grouped by length.

Jointly labelled sentences fill batches that train both heads in one pass. Where classification and
NER come from different corpora an update holds one batch of each; the shorter corpus starts again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from multitask_core.batching import pad_rows
from multitask_train.data.features import IGNORED, Feature

KINDS = ("joint", "classification", "ner")
# Sentences are shuffled, then sorted by length within pools of so many batches: little padding,
# and still different batches in every epoch.
POOL_BATCHES = 32

Batch = dict[str, Tensor]


class UpdatePlan:
    """The batches of every epoch, a function of seed and epoch alone."""

    def __init__(
        self, features: Sequence[Feature], batch_size: int, pad_id: int, seed: int
    ) -> None:
        groups = {kind: [one for one in features if one.kind == kind] for kind in KINDS}
        self._groups = {kind: group for kind, group in groups.items() if group}
        self._batch_size, self._pad_id, self._seed = batch_size, pad_id, seed

    def __len__(self) -> int:
        """Updates in an epoch."""
        return max(-(-len(group) // self._batch_size) for group in self._groups.values())

    @property
    def sizes(self) -> dict[str, int]:
        """Windows of each kind."""
        return {kind: len(group) for kind, group in self._groups.items()}

    def epoch(self, number: int) -> Iterator[list[Batch]]:
        """Yield the batches of each update."""
        streams = []
        for kind, group in self._groups.items():
            order = random.Random(f"{self._seed}/{number}/{kind}")  # noqa: S311  no secret
            streams.append(cycle(_batches(group, self._batch_size, order)))
        for batches in islice(zip(*streams, strict=True), len(self)):
            yield [collate(batch, self._pad_id) for batch in batches]


def collate(features: Sequence[Feature], pad_id: int) -> Batch:
    """Features → tensors named as the model's arguments, [B, L] and [B]."""
    input_ids, attention_mask = pad_rows([one.input_ids for one in features], pad_id)
    token_labels, _ = pad_rows([one.token_labels for one in features], IGNORED)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(attention_mask),
        "class_labels": torch.tensor([one.class_label for one in features]),
        "token_labels": torch.from_numpy(token_labels),
    }


def _batches(
    features: Sequence[Feature], batch_size: int, order: random.Random
) -> list[list[Feature]]:
    shuffled = list(features)
    order.shuffle(shuffled)
    pool = batch_size * POOL_BATCHES
    batches: list[list[Feature]] = []
    for first in range(0, len(shuffled), pool):
        part = sorted(shuffled[first : first + pool], key=lambda one: len(one.input_ids))
        batches.extend(part[at : at + batch_size] for at in range(0, len(part), batch_size))
    order.shuffle(batches)
    return batches
