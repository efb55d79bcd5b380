"""What the text model does with a batch of requests, so that its model.py stays a shell.

One bad request in a batch fails alone. A request with much text steps aside into a lane, whose
encoder calls are short and take turns with those of the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multitask_core.artifact import Artifact
from multitask_core.batching import Float32
from multitask_core.errors import InputError, OverloadError
from multitask_core.lane import Lane
from multitask_core.pipeline import Encoder, Pipeline
from multitask_core.prediction import Prediction, entities_to_json
from multitask_core.serving import Serving
from multitask_core.signature import ENTITIES, MIN_ENTITY_SCORE
from multitask_core.telemetry import REASONS, Meter, MeteredEncoder
from multitask_core.text import EncodedText
from multitask_core.turns import Turns

# Word pieces in one encoder call of what stepped aside: about as long as a batch of short texts.
SLOW_TOKEN_BUDGET = 256
# Batches that a pipeline has under way in the tensor model.
IN_FLIGHT = 4

Objects = npt.NDArray[np.object_]


class TextAnswer(NamedTuple):
    """The text model's outputs for one request of n texts: [n, 1], FP32 [n, C], [n, 1]."""

    labels: Objects
    label_scores: Float32
    entities: Objects


@dataclass(frozen=True)
class TextRequest:
    """UTF-8 texts, and what is wanted of the answer.

    entities: whether the token head is asked for. min_entity_score: entities below it are left out.
    """

    texts: Sequence[bytes]
    entities: bool = True
    min_entity_score: float = 0.0

    @classmethod
    def parse(
        cls, texts: Sequence[bytes], outputs: Collection[str], parameters: str
    ) -> TextRequest | InputError:
        """A request as Triton hands it over: output names, and its parameters as a JSON object."""
        given: dict[str, object] = json.loads(parameters or "{}")
        value = given.get(MIN_ENTITY_SCORE, 0.0)
        try:
            score = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if isinstance(value, bool) or not 0 <= score <= 1:
            return InputError(
                f"the parameter {MIN_ENTITY_SCORE} is {value!r}; it must be a number from 0 to 1"
            )
        return cls(texts, ENTITIES in outputs, score)


Result = TextAnswer | Exception
Reply = Callable[[Result], None]


def claim_memory(encoder: Encoder, longest: int, settings: Serving) -> None:
    """Run the largest batch once: a runtime takes the memory for it now, not under load.

    longest: pieces of the longest row.
    """
    length = min(longest, max(1, settings.token_budget // settings.max_batch))
    encoder([[0] * length] * settings.max_batch)


class TextService:
    """Answers batches of requests.

    pipeline: answers what is short; slow_pipeline: what stepped aside, with short encoder calls.
    meter: counts answers and refusals.
    """

    def __init__(
        self, pipeline: Pipeline, slow_pipeline: Pipeline, settings: Serving, meter: Meter
    ) -> None:
        self._pipeline, self._slow_pipeline = pipeline, slow_pipeline
        self._settings, self._meter = settings, meter
        self._lane = Lane(settings.waiting_pieces)

    @classmethod
    def for_artifact(
        cls,
        artifact: Artifact,
        encoder: Encoder,
        layout: str,
        settings: Serving,
        meter: Meter,
        *,
        in_process: bool,
    ) -> TextService:
        """The service of an artifact.

        in_process: the encoder computes here, one call at a time; otherwise it passes its calls on
        to a model of its own, and bears several.
        """
        metered = MeteredEncoder(encoder, layout, meter, Turns() if in_process else None)
        text_encoder = artifact.text_encoder()

        def pipeline(token_budget: int) -> Pipeline:
            return Pipeline(
                text_encoder,
                metered,
                artifact.schema,
                token_budget=token_budget,
                max_chars=settings.max_chars,
                max_pieces=settings.max_pieces,
                in_flight=1 if in_process else IN_FLIGHT,
            )

        short = min(settings.token_budget, SLOW_TOKEN_BUDGET)
        return cls(
            pipeline(settings.token_budget),
            pipeline(short if in_process else settings.token_budget),
            settings,
            meter,
        )

    def answer(
        self,
        requests: Sequence[TextRequest | InputError],
        later: Callable[[int], Reply] | None = None,
    ) -> list[Result | None]:
        """Answer requests in one pass; None stands for a request that stepped aside.

        later: index of a request → whom to give its answer when it is there; without it nothing
        steps aside. A request that cannot be answered gets an InputError; where it holds several
        texts the message begins with `text <index>: `. OverloadError refuses what would wait too
        long. When the pass itself fails each request runs by itself, so that only the faulty one
        gets the error.
        """
        results: list[Result | None] = [
            one if isinstance(one, InputError) else None for one in requests
        ]
        good = {i: one for i, one in enumerate(requests) if isinstance(one, TextRequest)}
        light: dict[int, list[EncodedText]] = {}
        for index, encoded in zip(good, self._encode([*good.values()]), strict=True):
            if isinstance(encoded, InputError):
                results[index] = encoded
            elif later and _pieces(encoded) > self._settings.light_pieces:
                results[index] = self._step_aside(good[index], encoded, later(index))
            else:
                light[index] = encoded
        answers = self._run(self._pipeline, [good[i] for i in light], [*light.values()])
        for index, answer in zip(light, answers, strict=True):
            results[index] = answer
        for result in results:
            self._count_refusal(result)
        return results

    def close(self) -> None:
        """Answer what stepped aside."""
        self._lane.drain()

    def _encode(self, requests: Sequence[TextRequest]) -> list[list[EncodedText] | InputError]:
        """Tokenise all texts together; a request's first fault is its own."""
        # Bytes that are no UTF-8 become lone surrogates, which the pipeline refuses.
        texts = [
            [bytes(text).decode("utf-8", "surrogateescape") for text in request.texts]
            for request in requests
        ]
        faults = [self._size_fault(one) for one in texts]
        good = [one for one, fault in zip(texts, faults, strict=True) if not fault]
        encoded = iter(self._pipeline.encode([text for one in good for text in one]))
        return [
            fault or self._checked([*islice(encoded, len(one))])
            for one, fault in zip(texts, faults, strict=True)
        ]

    def _size_fault(self, texts: Sequence[str]) -> InputError | None:
        """Why texts are not even tokenised together; each one's own length is the pipeline's."""
        size, most = sum(map(len, texts)), self._settings.max_request_chars
        if len(texts) < 2 or size <= most:
            return None
        return InputError(
            f"the request's {len(texts)} texts have {size:,} characters; at most {most:,} are "
            "allowed: send fewer texts in a request, or raise max_request_chars where the model is "
            "exported"
        )

    def _checked(
        self, encoded: Sequence[EncodedText | InputError]
    ) -> list[EncodedText] | InputError:
        good: list[EncodedText] = []
        for index, one in enumerate(encoded):
            if isinstance(one, InputError):
                return InputError(f"text {index}: {one}") if len(encoded) > 1 else one
            good.append(one)
        windows = sum(len(one.windows) for one in good)
        if windows > self._settings.max_windows:
            return InputError(
                f"the request's {len(good)} texts have {windows:,} windows; at most "
                f"{self._settings.max_windows:,} are allowed: send fewer texts in a request, or "
                "raise max_windows where the model is exported"
            )
        return good

    def _step_aside(
        self, request: TextRequest, encoded: list[EncodedText], reply: Reply
    ) -> OverloadError | None:
        def run() -> None:
            (answer,) = self._run(self._slow_pipeline, [request], [encoded])
            self._count_refusal(answer)
            reply(answer)

        try:
            self._lane.submit(_pieces(encoded), run)
        except OverloadError as error:
            return error
        self._meter.add("multitask_deferred_total")
        return None

    def _run(
        self,
        pipeline: Pipeline,
        requests: Sequence[TextRequest],
        encoded: Sequence[list[EncodedText]],
    ) -> list[Result]:
        try:
            answers = pipeline.answer([one for texts in encoded for one in texts])
        except Exception as error:  # noqa: BLE001  the runtimes raise several unrelated types
            if len(requests) == 1:
                return [error]
            pairs = zip(requests, encoded, strict=True)
            return [self._run(pipeline, [one], [texts])[0] for one, texts in pairs]
        self._meter.count_answers(answers)
        ends = [0, *accumulate(map(len, encoded))]
        return [
            _text_answer(request, answers[first:last])
            for request, (first, last) in zip(requests, pairwise(ends), strict=True)
        ]

    def _count_refusal(self, result: Result | None) -> None:
        if isinstance(result, Exception):
            self._meter.add("multitask_rejected_total", label="reason", shown=_reason(result))


def _pieces(encoded: Sequence[EncodedText]) -> int:
    return sum(len(one.ids) for one in encoded)


def _reason(error: Exception) -> str:
    bad_input, overload, other = REASONS
    if isinstance(error, InputError):
        return bad_input
    return overload if isinstance(error, OverloadError) else other


def _text_answer(request: TextRequest, answers: Sequence[Prediction]) -> TextAnswer:
    return TextAnswer(
        np.array([[one.label.encode()] for one in answers], np.object_),
        np.array([[*one.scores.values()] for one in answers], np.float32),
        np.array([[_entities(request, one)] for one in answers], np.object_),
    )


def _entities(request: TextRequest, answer: Prediction) -> bytes:
    if not request.entities:
        return b"[]"
    kept = tuple(one for one in answer.entities if one.score >= request.min_entity_score)
    return entities_to_json(kept).encode()
