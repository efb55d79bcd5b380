"""Which rows are computed: a grid of batch and length, or batches of real and long-tailed lengths.

A point's batches are fixed, and every engine computes them all, in whole passes: two engines never
differ by the luck of their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitask_core.batching import Rows
from multitask_core.errors import ConfigError
from multitask_core.text import TextEncoder

GRID, DATA, LONG_TAIL = "grid", "data", "long-tail"
LENGTHS = (GRID, DATA, LONG_TAIL)
# Pieces in a row of the long tail: log-normal, so that one in twenty is above 80.
MEDIAN, SIGMA = 16.0, 1.0
GRID_BATCHES = 2
MOST_BATCHES = 64
CHECKED_ROWS = 32


@dataclass(frozen=True)
class Point:
    """Rows in a batch, and pieces in each or, where they differ, the name of their distribution."""

    batch: int
    length: int = 0
    lengths: str = GRID

    def to_dict(self) -> dict[str, str | int | float]:
        """As a result file names it."""
        if self.lengths == GRID:
            return {"batch": self.batch, "length": self.length}
        return {"batch": self.batch, "lengths": self.lengths}

    def __str__(self) -> str:
        return f"{self.batch} × {self.length if self.lengths == GRID else self.lengths}"


@dataclass(frozen=True)
class Work:
    """A point with its batches."""

    point: Point
    batches: tuple[Rows, ...]

    @property
    def pieces(self) -> int:
        """Real pieces in all batches."""
        return sum(len(row) for rows in self.batches for row in rows)

    @property
    def slots(self) -> int:
        """Pieces of the first batch when it is padded, which a first call's time depends on."""
        return len(self.batches[0]) * max(map(len, self.batches[0]))


def grid(encoder: TextEncoder, batches: Sequence[int], lengths: Sequence[int]) -> list[Work]:
    """Every batch with every length, in random pieces between the tokenizer's special ones."""
    points = [Point(batch, length) for batch in batches for length in lengths]
    return [
        Work(point, tuple(_random_rows(encoder, point, seed) for seed in range(GRID_BATCHES)))
        for point in sorted(points, key=lambda one: one.batch * one.length)
    ]


def spread(rows: Rows, batches: Sequence[int], lengths: str) -> list[Work]:
    """Batches of rows in the order given, as requests arrive."""
    works = []
    for batch in sorted(batches):
        count = max(1, min(MOST_BATCHES, len(rows) // batch))
        stream = [rows[index % len(rows)] for index in range(count * batch)]
        parts = [stream[first : first + batch] for first in range(0, len(stream), batch)]
        works.append(Work(Point(batch, lengths=lengths), tuple(parts)))
    return works


def make_rows(encoder: TextEncoder, texts: Sequence[str], count: int, lengths: str) -> Rows:
    """At most `count` rows of piece ids in random order, special tokens included.

    lengths: `data` for the windows of the texts, `long-tail` for the texts joined and cut to a
    log-normal distribution, up to the window. Raises ConfigError for texts without a piece.
    """
    encoded = encoder(texts)
    rows = [encoder.input_ids(one, window) for one in encoded for window in one.windows]
    random = np.random.default_rng(0)
    if lengths == LONG_TAIL:
        line = [piece for one in encoded for piece in one.ids]
        if not line:
            raise ConfigError("the texts of --data hold no word piece: give others")
        longest = encoder.windowing.max_length
        line *= 2 + longest // len(line)
        ends = len(encoder.prefix) + len(encoder.suffix)
        wanted = np.exp(random.normal(np.log(MEDIAN), SIGMA, count)).astype(int)
        wanted = np.clip(wanted, ends + 1, longest) - ends
        starts = random.integers(0, len(line) - longest, count)
        rows = [
            [*encoder.prefix, *line[start : start + length], *encoder.suffix]
            for start, length in zip(starts.tolist(), wanted.tolist(), strict=True)
        ]
    return [rows[index] for index in random.permutation(len(rows))[:count]]


def mixes(encoder: TextEncoder, longest: int) -> list[Rows]:
    """Batches of every kind: one piece, a full row, both together, many rows of all lengths."""
    full = _random_rows(encoder, Point(1, longest), seed=99)[0]
    random = np.random.default_rng(1)
    lengths = np.exp(random.uniform(0, np.log(longest), CHECKED_ROWS)).astype(int)
    return [
        [full[:1]],
        [full],
        [full[:1], full, full[:2]],
        [full[: max(1, length)] for length in lengths.tolist()],
    ]


def length_facts(rows: Rows, batches: Sequence[int]) -> dict[str, Any]:
    """Lengths in pieces, and the share of padding when rows are batched as they come."""
    lengths = [len(row) for row in rows]
    return {
        "rows": len(rows),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "longest": max(lengths),
        "padding_share": {str(size): round(1 - _real_share(lengths, size), 3) for size in batches},
    }


def _real_share(lengths: Sequence[int], size: int) -> float:
    """Share of real pieces when batches of `size` are padded to their longest row."""
    batches = [lengths[first : first + size] for first in range(0, len(lengths), size)]
    return sum(lengths) / sum(len(batch) * max(batch) for batch in batches)


def _random_rows(encoder: TextEncoder, point: Point, seed: int) -> Rows:
    """Rows of exactly `length` valid pieces; special tokens stand at the ends alone."""
    ends = len(encoder.prefix) + len(encoder.suffix)
    if point.length <= ends:
        raise ConfigError(
            f"--length {point.length}: the tokenizer's special tokens alone are {ends} pieces; "
            f"give at least {ends + 1}"
        )
    special = {*encoder.prefix, *encoder.suffix, 0}
    pieces = np.array([one for one in range(encoder.vocabulary_size) if one not in special])
    random = np.random.default_rng([seed, point.batch, point.length])
    drawn = random.choice(pieces, (point.batch, point.length - ends))
    return [[*encoder.prefix, *row, *encoder.suffix] for row in drawn.tolist()]
