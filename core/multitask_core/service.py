"""What the Triton models do with a batch of requests, in numpy, so that model.py stays a shell.

One bad request in a batch fails alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multitask_core.batching import Float32, Int64
from multitask_core.errors import InputError
from multitask_core.pipeline import Encoder, Pipeline
from multitask_core.prediction import Prediction, entities_to_json

Objects = npt.NDArray[np.object_]


class TextAnswer(NamedTuple):
    """The text model's outputs for one request of n texts: [n, 1], FP32 [n, C], [n, 1]."""

    labels: Objects
    label_scores: Float32
    entities: Objects


def answer_texts(
    pipeline: Pipeline, requests: Sequence[Sequence[bytes]]
) -> list[TextAnswer | Exception]:
    """Answer the TEXT bytes of several requests in one pass of the pipeline.

    A request with a text that cannot be answered gets an InputError; where it holds several texts
    the message begins with `text <index>: `. When the pass itself fails each request runs by
    itself, so that only the faulty one gets the error.
    """
    # Bytes that are no UTF-8 become lone surrogates, which the pipeline refuses.
    texts = [
        bytes(item).decode("utf-8", "surrogateescape") for request in requests for item in request
    ]
    try:
        answers = pipeline.predict_each(texts)
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises several unrelated types
        if len(requests) == 1:
            return [error]
        return [answer_texts(pipeline, [request])[0] for request in requests]
    ends = [0, *accumulate(len(request) for request in requests)]
    return [_text_answer(answers[first:last]) for first, last in pairwise(ends)]


class TensorLimits(NamedTuple):
    """What the tensor model accepts: ids below vocabulary, at most length pieces in a row."""

    vocabulary: int
    length: int


def answer_tensors(
    encoder: Encoder, limits: TensorLimits, requests: Sequence[tuple[Int64, Int64]]
) -> list[tuple[Float32, Float32] | Exception]:
    """Run requests of equal length L, each input_ids and attention_mask [b, L], as one batch.

    A request that breaks the limits gets an InputError; the others run. When the batch fails each
    request runs by itself, so that only the faulty one gets the error.
    """
    answers: list[tuple[Float32, Float32] | Exception | None] = [
        _tensor_fault(limits, *request) for request in requests
    ]
    good = [index for index, answer in enumerate(answers) if answer is None]
    ran = _run_tensors(encoder, [requests[index] for index in good]) if good else []
    for index, answer in zip(good, ran, strict=True):
        answers[index] = answer
    return [answer for answer in answers if answer is not None]


def _run_tensors(
    encoder: Encoder, requests: Sequence[tuple[Int64, Int64]]
) -> Sequence[tuple[Float32, Float32] | Exception]:
    try:
        ids, masks = (np.concatenate(part) for part in zip(*requests, strict=True))
        class_logits, token_logits = encoder(ids, masks)
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises several unrelated types
        if len(requests) == 1:
            return [error]
        return [_run_tensors(encoder, [request])[0] for request in requests]
    ends = np.cumsum([len(ids) for ids, _ in requests])[:-1]
    return list(zip(np.split(class_logits, ends), np.split(token_logits, ends), strict=True))


def _tensor_fault(limits: TensorLimits, ids: Int64, mask: Int64) -> InputError | None:
    """What ONNX would broadcast, wrap round or answer with nonsense."""
    if ids.shape != mask.shape:
        return InputError(f"input_ids {ids.shape} and attention_mask {mask.shape} differ in shape")
    if not 1 <= ids.shape[1] <= limits.length:
        return InputError(
            f"rows have {ids.shape[1]} pieces; this model reads 1 to {limits.length}, special "
            "tokens included: cut longer texts into windows, or send them to the text model"
        )
    if ids.min() < 0 or ids.max() >= limits.vocabulary:
        wrong = ids[(ids < 0) | (ids >= limits.vocabulary)][0]
        return InputError(f"id {wrong} is outside the vocabulary of {limits.vocabulary} pieces")
    if ((mask != 0) & (mask != 1)).any() or not mask.any(axis=1).all():
        return InputError("attention_mask must be 1 for pieces and 0 for padding, some 1 in a row")
    return None


def _text_answer(answers: Sequence[Prediction | InputError]) -> TextAnswer | InputError:
    good: list[Prediction] = []
    for index, answer in enumerate(answers):
        if isinstance(answer, InputError):
            return InputError(f"text {index}: {answer}") if len(answers) > 1 else answer
        good.append(answer)
    return TextAnswer(
        np.array([[one.label.encode()] for one in good], np.object_),
        np.array([list(one.scores.values()) for one in good], np.float32),
        np.array([[entities_to_json(one.entities).encode()] for one in good], np.object_),
    )
