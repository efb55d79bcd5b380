"""What the tensor model does with a batch of requests, in numpy, so that model.py stays a shell.

One bad request in a batch fails alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from multitask_core.batching import MAX_ROWS, Float32, Int64, RowLogits, Rows, pad_rows, unpad_rows
from multitask_core.errors import InputError
from multitask_core.pipeline import Encoder
from multitask_core.signature import PACKED

# One request's class_logits [b, C] and token_logits [b, L, T].
HeadLogits = tuple[Float32, Float32]
Request = TypeVar("Request")


class TensorLimits(NamedTuple):
    """What the tensor model accepts: ids below vocabulary, at most length pieces in a row."""

    vocabulary: int
    length: int


def answer_tensors(
    run: Callable[[Int64, Int64], HeadLogits],
    limits: TensorLimits,
    requests: Sequence[tuple[Int64, Int64]],
) -> list[HeadLogits | Exception]:
    """Run padded requests of one length L, each input_ids and attention_mask [b, L], as one batch.

    A request that breaks the limits gets an InputError; the others run. When the batch fails each
    request runs by itself, so that only the faulty one gets the error.
    """

    def together(requests: Sequence[tuple[Int64, Int64]]) -> list[HeadLogits]:
        ids, masks = (np.concatenate(part) for part in zip(*requests, strict=True))
        class_logits, token_logits = run(ids, masks)
        ends = np.cumsum([len(ids) for ids, _ in requests])[:-1]
        return list(zip(np.split(class_logits, ends), np.split(token_logits, ends), strict=True))

    faults = [_ids_fault(limits, ids) or _mask_fault(ids, mask) for ids, mask in requests]
    return _answer_good(together, requests, faults)


def answer_rows(
    encoder: Encoder, limits: TensorLimits, requests: Sequence[Int64]
) -> list[HeadLogits | Exception]:
    """Run packed requests of any lengths, each input_ids [b, n] without padding, as one batch.

    A faulty request gets its own error as in `answer_tensors`.
    """

    def together(requests: Sequence[Int64]) -> list[HeadLogits]:
        rows = iter(encoder([row for ids in requests for row in ids.tolist()]))
        answers = ([next(rows) for _ in ids] for ids in requests)
        return [
            (np.stack([one for one, _ in answer]), np.stack([one for _, one in answer]))
            for answer in answers
        ]

    return _answer_good(together, requests, [_ids_fault(limits, ids) for ids in requests])


class TensorModelEncoder:
    """A tensor model behind a call, as the pipeline's encoder.

    send: takes the model's inputs in the order of `signature.tensor_signature` and gives
    class_logits [b, C] and token_logits [b, L, T]; it may be called from several threads.
    """

    def __init__(
        self, send: Callable[..., HeadLogits], layout: str, in_flight: int = MAX_ROWS
    ) -> None:
        self._send, self._layout = send, layout
        self._threads = ThreadPoolExecutor(in_flight) if layout == PACKED else None

    def __call__(self, rows: Rows) -> list[RowLogits]:
        """Run one batch: as one padded request, or as a packed request for each row, all in flight.

        Triton counts a request's rows together when it tells a packed graph the longest row.
        """
        if self._threads is None:
            return unpad_rows(rows, *self._send(*pad_rows(rows)))
        answers = self._threads.map(self._send, [np.array([row]) for row in rows])
        return [(class_logits[0], token_logits[0]) for class_logits, token_logits in answers]


def _answer_good(
    together: Callable[[Sequence[Request]], Sequence[HeadLogits]],
    requests: Sequence[Request],
    faults: Sequence[InputError | None],
) -> list[HeadLogits | Exception]:
    """Run the faultless requests together, or each by itself when that fails."""
    answers: list[HeadLogits | Exception | None] = list(faults)
    good = [index for index, fault in enumerate(faults) if fault is None]
    ran = _isolated(together, [requests[index] for index in good]) if good else []
    for index, answer in zip(good, ran, strict=True):
        answers[index] = answer
    return [answer for answer in answers if answer is not None]


def _isolated(
    together: Callable[[Sequence[Request]], Sequence[HeadLogits]], requests: Sequence[Request]
) -> Sequence[HeadLogits | Exception]:
    try:
        return together(requests)
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises several unrelated types
        if len(requests) == 1:
            return [error]
        return [_isolated(together, [request])[0] for request in requests]


def _ids_fault(limits: TensorLimits, ids: Int64) -> InputError | None:
    """What ONNX would wrap round or answer with nonsense."""
    if not 1 <= ids.shape[1] <= limits.length:
        return InputError(
            f"rows have {ids.shape[1]} pieces; this model reads 1 to {limits.length}, special "
            "tokens included: cut longer texts into windows, or send them to the text model"
        )
    if ids.min() < 0 or ids.max() >= limits.vocabulary:
        wrong = ids[(ids < 0) | (ids >= limits.vocabulary)][0]
        return InputError(f"id {wrong} is outside the vocabulary of {limits.vocabulary} pieces")
    return None


def _mask_fault(ids: Int64, mask: Int64) -> InputError | None:
    """What ONNX would broadcast or answer with nonsense."""
    if ids.shape != mask.shape:
        return InputError(f"input_ids {ids.shape} and attention_mask {mask.shape} differ in shape")
    if ((mask != 0) & (mask != 1)).any() or not mask.any(axis=1).all():
        return InputError("attention_mask must be 1 for pieces and 0 for padding, some 1 in a row")
    return None
