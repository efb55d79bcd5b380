"""What the Triton models do with a batch of requests, in numpy, so that model.py stays a shell.

One bad request in a batch fails alone.
"""

from __future__ import annotations

from collections.abc import Sequence
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
) -> list[TextAnswer | InputError]:
    """Answer the TEXT bytes of several requests in one pass of the pipeline.

    A request with a text that cannot be answered gets an InputError; where it holds several texts
    the message begins with `text <index>: `.
    """
    texts: list[str] = []
    counts: list[int] = []
    for request in requests:
        # Bytes that are no UTF-8 become lone surrogates, which the pipeline refuses.
        texts.extend(bytes(item).decode("utf-8", "surrogateescape") for item in request)
        counts.append(len(request))
    answers = pipeline.predict_each(texts)
    result: list[TextAnswer | InputError] = []
    first = 0
    for count in counts:
        result.append(_text_answer(answers[first : first + count]))
        first += count
    return result


def answer_tensors(
    encoder: Encoder, requests: Sequence[tuple[Int64, Int64]]
) -> list[tuple[Float32, Float32] | Exception]:
    """Run requests of equal length L, each input_ids and attention_mask [b, L], as one batch.

    When the batch fails each request runs by itself, so that only the faulty one gets the error.
    """
    try:
        ids, masks = (np.concatenate(part) for part in zip(*requests, strict=True))
        class_logits, token_logits = encoder(ids, masks)
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises several unrelated types
        if len(requests) == 1:
            return [error]
        return [answer_tensors(encoder, [request])[0] for request in requests]
    ends = np.cumsum([len(ids) for ids, _ in requests])[:-1]
    return list(zip(np.split(class_logits, ends), np.split(token_logits, ends), strict=True))


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
