"""Rows of different lengths → padded batches under a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

TOKEN_BUDGET = 2048
MAX_ROWS = 64


def plan_batches(
    lengths: Sequence[int], token_budget: int = TOKEN_BUDGET, max_rows: int = MAX_ROWS
) -> list[list[int]]:
    """Group row indices by length so that rows × longest ≤ token_budget in every batch.

    A row longer than the budget gets a batch of its own. Each index appears exactly once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        rows = len(batches[-1]) + 1 if batches else 0
        if batches and rows <= max_rows and rows * lengths[index] <= token_budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[Int64, Int64]:
    """Rows of ids → input_ids and attention_mask, both INT64 [B, L], padded on the right."""
    longest = max(map(len, rows))
    input_ids = np.full((len(rows), longest), pad_id, np.int64)
    attention_mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        attention_mask[index, : len(row)] = 1
    return input_ids, attention_mask
