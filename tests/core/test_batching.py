"""Batches under a token budget."""

from hypothesis import given
from hypothesis import strategies as st

from multitask_core.batching import pad_rows, plan_batches


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
