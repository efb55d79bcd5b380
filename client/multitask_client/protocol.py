"""The conversation with a text model, without any I/O: what to ask next, and what it meant.

Each conversation is a generator. It yields commands (`FetchConfig`, `Infer`, …), is sent their
replies or thrown their errors, and returns the result. `client` and `aio` carry the commands out,
so both clients behave alike by construction.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from multitask_client.answers import Ask, RawAnswer, ServedConfig, read_answer
from multitask_client.errors import (
    BadRequest,
    CallError,
    DeadlineExceeded,
    ModelUnavailable,
    ServerError,
    ServerUnavailable,
)
from multitask_client.settings import Settings
from multitask_core.prediction import Prediction

T = TypeVar("T")

# Characters in one request of several texts: a request of many long ones would be as much work as a
# server lets wait at once, so that it refused the next.
_MOST_CHARS = 30_000


@dataclass(frozen=True)
class FetchConfig:
    """Ask for the model's config → ServedConfig; version "" is the one the server would choose."""

    version: str


@dataclass(frozen=True)
class Infer:
    """One request: its texts, their places in the caller's list, what is wanted of them."""

    texts: tuple[str, ...]
    indices: tuple[int, ...]
    ask: Ask = Ask()  # noqa: RUF009  immutable


@dataclass(frozen=True)
class InferAll:
    """Several requests, concurrently → one RawAnswer each, in order.

    keep_going: a BadRequest takes its answer's place; otherwise the first one ends the call.
    """

    requests: tuple[Infer, ...]
    keep_going: bool = False


@dataclass(frozen=True)
class CheckReady:
    """Ask whether the model is ready → bool."""


@dataclass(frozen=True)
class Sleep:
    """Wait; raises DeadlineExceeded at once where the deadline comes first."""

    seconds: float


Command = FetchConfig | InferAll | CheckReady | Sleep
# What is sent in depends on the command; each place that yields annotates its own reply.
Conversation = Generator[Command, Any, T]


class TextModel:
    """What one client knows of the model it talks to; safe to share between threads.

    Class names are kept for every version that has answered, for a rolling update may mix them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Single assignments to a dict and an int are atomic: a race costs a second look-up.
        self._classes: dict[str, tuple[str, ...]] = {}
        self._limit = 0

    def predict(self, texts: Sequence[str], ask: Ask) -> Conversation[list[Prediction]]:
        """Answer all texts or raise the error of the first that cannot be answered."""
        _check_sequence(texts)
        good = tuple(check_text(text, index) for index, text in enumerate(texts))
        checked = Infer(good, _upto(texts), ask)
        try:
            return (yield from self._predict(checked))
        except (BadRequest, ModelUnavailable) as error:
            if not (yield from self._was_replaced(error)):
                raise
        return (yield from self._predict(checked))

    def predict_each(
        self, texts: Sequence[str], ask: Ask
    ) -> Conversation[list[Prediction | BadRequest]]:
        """Answer every text by itself: one that cannot be answered gets its own error."""
        _check_sequence(texts)
        results: dict[int, Prediction | BadRequest] = {}
        for index, text in enumerate(texts):
            try:
                check_text(text, index)
            except BadRequest as error:
                results[index] = error
        try:
            yield from self._answer_each(texts, ask, results)
        except ModelUnavailable as error:
            if not (yield from self._was_replaced(error)):
                raise
            yield from self._answer_each(texts, ask, results)
        return [results[index] for index in range(len(texts))]

    def is_ready(self) -> Conversation[bool]:
        """Whether the model would answer now."""
        return (yield from self._obstacle()) is None

    def wait_until_ready(self) -> Conversation[None]:
        """Ask until the model is ready; at the deadline raise what stood in the way."""
        pause_s, known = 0.05, None
        while obstacle := (yield from self._obstacle()):
            # The last question may be cut short by the deadline: an earlier reply says more.
            known = obstacle if not known or not isinstance(obstacle, DeadlineExceeded) else known
            try:
                yield Sleep(pause_s)
            except DeadlineExceeded:
                raise known from None
            pause_s = min(2 * pause_s, 1.0)

    def _predict(self, checked: Infer) -> Conversation[list[Prediction]]:
        requests = yield from self._split(checked)
        if not requests:
            return []
        answers: list[RawAnswer] = yield InferAll(tuple(requests))
        predictions: list[Prediction] = []
        for request, answer in zip(requests, answers, strict=True):
            predictions += yield from self._read(answer, request)
        return predictions

    def _answer_each(
        self, texts: Sequence[str], ask: Ask, results: dict[int, Prediction | BadRequest]
    ) -> Conversation[None]:
        """Fill in the results that are not there yet."""
        left = tuple(index for index in _upto(texts) if index not in results)
        checked = Infer(tuple(texts[index] for index in left), left, ask)
        refused = yield from self._collect((yield from self._split(checked)), results)
        # A refusal speaks of one text and fails its whole request: ask for each text by itself.
        singles = [one for request in refused for one in split(request, 1)]
        yield from self._collect(singles, results)

    def _collect(
        self, requests: Sequence[Infer], results: dict[int, Prediction | BadRequest]
    ) -> Conversation[list[Infer]]:
        """Fill in results; returns the refused requests of more than one text."""
        if not requests:
            return []
        refused: list[Infer] = []
        answers: list[RawAnswer | BadRequest] = yield InferAll(tuple(requests), keep_going=True)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, RawAnswer):
                predictions = yield from self._read(answer, request)
                results.update(zip(request.indices, predictions, strict=True))
            elif len(request.texts) == 1:
                results[request.indices[0]] = answer
            else:
                refused.append(request)
        return refused

    def _split(self, checked: Infer) -> Conversation[list[Infer]]:
        if len(checked.texts) > 1 and not self._limit:
            yield from self._fetch(self._settings.model_version)
        limit = min(self._settings.max_batch or self._limit, self._limit)
        return split(checked, limit or 1)

    def _read(self, answer: RawAnswer, request: Infer) -> Conversation[list[Prediction]]:
        count, ask = len(request.texts), request.ask
        known = self._classes.get(answer.version)
        if known:
            try:
                return read_answer(answer, count, known, self._settings.url, ask)
            except ServerError:
                pass  # perhaps the version was replaced in place: ask for its classes once more
        config = yield from self._fetch(answer.version)
        self._classes[answer.version] = config.classes
        return read_answer(answer, count, config.classes, self._settings.url, ask)

    def _fetch(self, version: str) -> Conversation[ServedConfig]:
        config: ServedConfig = yield FetchConfig(version)
        self._limit = config.max_batch_size
        return config

    def _was_replaced(self, error: CallError) -> Conversation[bool]:
        """Whether a new version explains the error: smaller batches, or the old one is gone."""
        limit = self._limit
        if isinstance(error, BadRequest) and not limit:
            return False
        config = yield from self._fetch(self._settings.model_version)
        return isinstance(error, ModelUnavailable) or config.max_batch_size < limit

    def _obstacle(self) -> Conversation[CallError | None]:
        try:
            ready: bool = yield CheckReady()
        except (ServerUnavailable, ModelUnavailable, DeadlineExceeded) as error:
            return error
        if ready:
            return None
        name = " version ".join(filter(None, (self._settings.model, self._settings.model_version)))
        message = f"{self._settings.url}: model {name} is not ready (unknown or still loading)"
        return ModelUnavailable(message, url=self._settings.url)


def check_text(text: object, index: int) -> str:
    """Raise BadRequest for what cannot be sent at all; the server judges everything else."""
    if not isinstance(text, str):
        kind = type(text).__name__
        raise BadRequest(f"text {index}: a text must be str, got {kind}", index=index)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"text {index}: lone surrogate at position {error.start}, which is not valid Unicode; "
            "decode the source with errors='replace' or repair it",
            index=index,
        ) from error
    return text


def split(request: Infer, limit: int) -> list[Infer]:
    """Cut a request into ones of at most `limit` texts and _MOST_CHARS, in order.

    A longer text is a request by itself.
    """
    starts: list[int] = []
    size = 0
    for at, text in enumerate(request.texts):
        if not starts or at - starts[-1] == limit or size + len(text) > _MOST_CHARS:
            starts.append(at)
            size = 0
        size += len(text)
    return [
        Infer(request.texts[first:last], request.indices[first:last], request.ask)
        for first, last in pairwise([*starts, len(request.texts)])
    ]


def locate(error: CallError, request: Infer) -> CallError:
    """Let a refusal name the text by its place in the caller's list.

    The server counts within one request and says `text 3: …`, or nothing where it got one text.
    """
    if not isinstance(error, BadRequest):
        return error
    message = str(error)
    named = re.match(r"text (\d+): ", message)
    place = int(named[1]) if named else 0
    if (not named and len(request.texts) > 1) or place >= len(request.texts):
        return error
    index = request.indices[place]
    reason = message[named.end() :] if named else message
    return BadRequest(f"text {index}: {reason}", index=index, status=error.status, url=error.url)


def _check_sequence(texts: Sequence[str]) -> None:
    if isinstance(texts, str | bytes):
        raise TypeError(
            f"predict takes a list of texts; for a single one write predict([{texts!r:.60}])"
        )


def _upto(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(range(len(texts)))
