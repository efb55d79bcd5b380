"""Rows of different lengths → batches under a token budget, padded or packed, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

# Piece ids of several windows, special tokens included, and the logits of one: [C] and [pieces, T].
Rows = Sequence[Sequence[int]]
RowLogits = tuple[Float32, Float32]

TOKEN_BUDGET = 2048
MAX_ROWS = 64


def length_buckets(longest: int) -> list[int]:
    """Row lengths 16, 32, 64 … and the longest: a server is warmed with one of each."""
    doubled = [16 << power for power in range(16)]
    return [*(length for length in doubled if length < longest), longest]


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


def pad_rows(rows: Rows, pad_id: int = 0) -> tuple[Int64, Int64]:
    """Rows of ids → input_ids and attention_mask, both INT64 [B, L], padded on the right."""
    longest = max(map(len, rows))
    input_ids = np.full((len(rows), longest), pad_id, np.int64)
    attention_mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
        attention_mask[index, : len(row)] = 1
    return input_ids, attention_mask


def pack_rows(rows: Rows) -> tuple[Int64, Float32, Float32]:
    """Rows of ids → input_ids INT64 [N], lengths FP32 [B, 1] and longest FP32 [L].

    This is what Triton's ragged batching hands to a packed graph.
    """
    lengths = np.array([[len(row)] for row in rows], np.float32)
    return np.concatenate(rows).astype(np.int64), lengths, np.zeros(max(map(len, rows)), np.float32)


def pack_rounded(rows: Rows) -> tuple[Int64, Float32, Float32]:
    """`pack_rows` with rows of padding behind, so that few different shapes occur.

    Some runtimes prepare, and keep, code for every shape that they see. Pieces, rows and longest
    row are rounded up by at most an eighth, or to multiples of 16 and 8; no added row is longer
    than the longest real one. What the added rows give stands behind the real rows' answers.
    """
    pieces, longest = sum(map(len, rows)), max(map(len, rows))
    count = _rounded(len(rows), 1)
    total = _rounded(pieces + count - len(rows), 16)
    while total - pieces > longest * (count - len(rows)):
        count = _rounded(count + 1, 1)
        total = _rounded(pieces + count - len(rows), 16)
    added, waste = count - len(rows), total - pieces
    padding = [[0] * (waste // added + (index < waste % added)) for index in range(added)]
    ids, lengths, _ = pack_rows([*rows, *padding])
    return ids, lengths, np.zeros(_rounded(longest, 8), np.float32)


def _rounded(value: int, least: int) -> int:
    """Up to a multiple of `least`, or of an eighth of the power of two below, if that is more."""
    step = max(least, (1 << (value.bit_length() - 1)) >> 3)
    return -(-value // step) * step


def unpad_rows(rows: Rows, class_logits: Float32, token_logits: Float32) -> list[RowLogits]:
    """Logits [B, C] and [B, L, T] of a padded batch → those of each row."""
    return [(class_logits[i], token_logits[i, : len(row)]) for i, row in enumerate(rows)]


def unpack_rows(rows: Rows, class_logits: Float32, token_logits: Float32) -> list[RowLogits]:
    """Logits [B, C] and [N, T] of a packed batch → those of each row; more behind are left out."""
    ends = np.cumsum([len(row) for row in rows])
    return list(zip(class_logits[: len(rows)], np.split(token_logits, ends)[:-1], strict=True))
