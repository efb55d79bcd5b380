"""Batches under a token budget."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from multitask_core.batching import pack_rounded, pack_rows, pad_rows, plan_batches, unpack_rows


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200), st.integers(1, 8))
def test_each_row_once_and_within_budget(lengths: list[int], budget: int, rows: int) -> None:
    batches = plan_batches(lengths, budget, rows)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or (len(batch) <= rows and len(batch) * longest <= budget)


def test_neighbours_in_length_share_a_batch() -> None:
    assert plan_batches([9, 2, 9, 2], token_budget=18) == [[1, 3], [0, 2]]


def test_padding_stands_on_the_right() -> None:
    ids, mask = pad_rows([[5], [6, 7, 8]], pad_id=1)
    assert ids.tolist() == [[5, 1, 1], [6, 7, 8]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80))
def test_rounded_shapes_keep_the_rows_and_add_little(lengths: list[int]) -> None:
    rows = [[number + 1] * length for number, length in enumerate(lengths)]
    exact, (ids, counts, longest) = pack_rows(rows), pack_rounded(rows)
    assert ids[: len(exact[0])].tolist() == exact[0].tolist()
    assert counts[: len(rows)].tolist() == exact[1].tolist()
    assert counts.sum() == len(ids)
    assert counts.min() >= 1
    assert counts.max() == max(lengths)
    assert max(lengths) <= len(longest) <= max(max(lengths) * 1.125, max(lengths) + 8)
    assert len(ids) <= max(1.3 * sum(lengths), sum(lengths) + 40)
    answers = unpack_rows(rows, counts, np.repeat(ids[:, None], 2, axis=1).astype(np.float32))
    assert [tokens[:, 0].tolist() for _, tokens in answers] == rows


def test_rounding_leaves_few_shapes() -> None:
    """Batches of 1 to 24 rows of any length up to 64: thousands of shapes become a few dozen."""
    random = np.random.default_rng(0)
    shapes = set()
    for _ in range(3000):
        lengths = random.integers(1, 65, random.integers(1, 25))
        ids, counts, longest = pack_rounded([[1] * length for length in lengths.tolist()])
        shapes.update((("pieces", len(ids)), ("view", len(counts), len(longest))))
    assert len(shapes) < 250
