"""What the tensor model does with a batch of requests."""

import numpy as np
import pytest

from multitask_core.errors import InputError
from multitask_core.tensor_service import (
    TensorLimits,
    TensorModelEncoder,
    answer_rows,
    answer_tensors,
)

LIMITS = TensorLimits(vocabulary=100, length=8)


def test_a_faulty_tensor_request_fails_alone() -> None:
    def encoder(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if ids.max() > 9:
            raise RuntimeError("index out of range")
        return ids[:, :1].astype(np.float32), ids[..., None].astype(np.float32)

    rows = [np.array([[1, 2]]), np.array([[99, 2]]), np.array([[3, 4], [5, 6]])]
    answers = answer_tensors(encoder, LIMITS, [(row, np.ones_like(row)) for row in rows])
    assert isinstance(answers[1], RuntimeError)
    assert [answers[0][0].tolist(), answers[2][0].tolist()] == [[[1]], [[3], [5]]]


def test_tensor_requests_run_as_one_batch() -> None:
    calls = []

    def encoder(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(ids))
        return ids[:, :1], ids

    row = np.ones((2, 3), np.int64)
    assert len(answer_tensors(encoder, LIMITS, [(row, row)] * 3)) == 3
    assert calls == [6]


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[1, 2]], [[1]], "differ in shape"),
        ([[1] * 9], [[1] * 9], "rows have 9 pieces; this model reads 1 to 8"),
        ([[]], [[]], "rows have 0 pieces"),
        ([[1, 100]], [[1, 1]], "id 100 is outside the vocabulary of 100"),
        ([[-5, 1]], [[1, 1]], "id -5 is outside"),
        ([[1, 2]], [[1, 7]], "attention_mask must be 1"),
        ([[1, 2], [1, 2]], [[1, 1], [0, 0]], "attention_mask must be 1"),
    ],
)
def test_tensors_that_would_be_answered_with_nonsense(ids, mask, message: str) -> None:
    def encoder(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ids, ids

    good = np.ones((1, 2), np.int64)
    wrong = (np.array(ids, np.int64), np.array(mask, np.int64))
    first, second = answer_tensors(encoder, LIMITS, [wrong, (good, good)])
    assert message in str(first)
    assert isinstance(first, InputError)
    assert isinstance(second, tuple)


def row_sums(rows):
    return [(np.array([sum(row)], np.float32), np.array([[one] for one in row])) for row in rows]


def test_packed_requests_of_any_lengths_run_as_one_batch() -> None:
    calls = []

    def encoder(rows):
        calls.append(len(rows))
        return row_sums(rows)

    requests = [np.array([[1, 2], [3, 4]]), np.array([[5]]), np.array([[6, 7, 8]])]
    answers = answer_rows(encoder, LIMITS, requests)
    assert calls == [4]
    assert [answer[0].tolist() for answer in answers] == [[[3], [7]], [[5]], [[21]]]
    assert [answer[1].shape for answer in answers] == [(2, 2, 1), (1, 1, 1), (1, 3, 1)]


def test_a_faulty_packed_request_fails_alone() -> None:
    def encoder(rows):
        if any(50 in row for row in rows):
            raise RuntimeError("index out of range")
        return row_sums(rows)

    requests = [np.array([[1, 2]]), np.array([[100]]), np.array([[50]]), np.array([[3]])]
    good, outside, broken, other = answer_rows(encoder, LIMITS, requests)
    assert (good[0].tolist(), other[0].tolist()) == ([[3]], [[3]])
    assert isinstance(outside, InputError)
    assert isinstance(broken, RuntimeError)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_tensor_model_as_encoder(layout: str) -> None:
    """Rows come back in their order, whichever requests carried them."""
    rows = [[1, 2], [3], [4, 5], [6, 7, 8], [9]]
    sent = []

    def send(ids, *mask):
        sent.append(ids.shape)
        assert len(mask) == (layout == "padded")
        return ids.sum(1, keepdims=True), ids[..., None]

    answers = TensorModelEncoder(send, layout)(rows)
    assert [int(answer[0][0]) for answer in answers] == [sum(row) for row in rows]
    assert [answer[1][:, 0].tolist() for answer in answers] == rows
    assert sorted(sent) == (
        [(5, 3)] if layout == "padded" else [(1, 1), (1, 1), (1, 2), (1, 2), (1, 3)]
    )
