"""The blocking client."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from multitask_client.answers import Ask, RawAnswer, Statistics
from multitask_client.deadline import Deadline
from multitask_client.errors import BadRequest, CallError
from multitask_client.protocol import (
    Command,
    Conversation,
    FetchConfig,
    InferAll,
    Sleep,
    TextModel,
)
from multitask_client.settings import Settings, Tls
from multitask_core import signature
from multitask_core.prediction import Prediction

if TYPE_CHECKING:
    from multitask_client.transport import Pending, SyncTransport

T = TypeVar("T")


class Client:
    """Predicts texts on a server; threads may share one client, processes may not.

    url: host:port of the gRPC endpoint.
    model_version: "" takes whichever version the server chooses.
    deadline_s: seconds that one `predict` may take, however many requests and retries it needs.
    max_batch: most texts in one request; 0 takes what the server's model allows.
    in_flight: most requests of one `predict` under way at once.
    retries: further attempts, 0.1 s apart and doubling, while the server is unavailable (0–4).
    tls: encrypt the connection, `Tls()` with the system's authorities.
    headers: sent with every request.
    spread: spread requests over all addresses behind the name.

    Raises ConfigError for a setting that cannot work. Connecting happens at the first call.
    """

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        model: str = signature.TEXT_MODEL,
        model_version: str = "",
        deadline_s: float = 10.0,
        max_batch: int = 0,
        in_flight: int = 8,
        retries: int = 3,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        spread: bool = False,
    ) -> None:
        self.settings = Settings(
            url, model, model_version, deadline_s, max_batch, in_flight, retries, tls,
            headers or {}, spread,
        )  # fmt: skip
        from multitask_client.transport import SyncTransport  # loads gRPC and numpy: 0.3 s

        self._model = TextModel(self.settings)
        self._transport = SyncTransport(self.settings)
        self._closed = False

    def predict(
        self, texts: Sequence[str], *, only: str = "", min_entity_score: float = 0.0
    ) -> list[Prediction]:
        """Answer every text, in order.

        only: `label` or `entities` asks for one head alone. min_entity_score: entities with a lower
        score are left out. Raises BadRequest naming the first text that cannot be answered, any
        other CallError where the call failed, ConfigError for options that do not exist, and
        TypeError for a bare string.
        """
        ask = Ask(only, min_entity_score)
        return self._run(self._model.predict(texts, ask), self.settings.deadline_s)

    def predict_each(
        self, texts: Sequence[str], *, only: str = "", min_entity_score: float = 0.0
    ) -> list[Prediction | BadRequest]:
        """Answer every text by itself: one that cannot be answered gets its own error."""
        ask = Ask(only, min_entity_score)
        return self._run(self._model.predict_each(texts, ask), self.settings.deadline_s)

    def is_ready(self) -> bool:
        """Whether the server can be reached and serves the model."""
        return self._run(self._model.is_ready(), self.settings.deadline_s)

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait for the model; raises ServerUnavailable or ModelUnavailable at the timeout."""
        self._run(self._model.wait_until_ready(), timeout_s)

    def statistics(self) -> Statistics:
        """The model's counters on the server."""
        return self._open().statistics(self.settings.deadline_s)

    def server_version(self) -> str:
        """Version of Triton that answers."""
        return self._open().server_version(self.settings.deadline_s)

    def close(self) -> None:
        """Close the connection; calls under way fail."""
        self._closed = True
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> SyncTransport:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        return self._transport

    def _run(self, conversation: Conversation[T], timeout_s: float) -> T:
        """Carry out a conversation's commands until it returns."""
        transport = self._open()
        deadline = Deadline(timeout_s, self.settings.url)
        try:
            command = next(conversation)
            while True:
                try:
                    reply = self._execute(transport, command, deadline)
                except CallError as error:
                    command = conversation.throw(error)
                else:
                    command = conversation.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    def _execute(self, transport: SyncTransport, command: Command, deadline: Deadline) -> object:
        if isinstance(command, InferAll):
            return self._infer_all(transport, command, deadline)
        if isinstance(command, FetchConfig):
            return transport.fetch_config(command.version, deadline.left_s())
        if isinstance(command, Sleep):
            time.sleep(deadline.spend_s(command.seconds))
            return None
        return transport.is_ready(deadline.left_s())

    def _infer_all(
        self, transport: SyncTransport, command: InferAll, deadline: Deadline
    ) -> list[Any]:
        """Keep `in_flight` requests under way, collecting the oldest first."""
        if len(command.requests) == 1 and not command.keep_going:
            return [transport.infer(command.requests[0], deadline.left_s())]
        answers: list[RawAnswer | BadRequest] = []
        window: deque[Pending] = deque()
        try:
            for request in command.requests:
                if len(window) == self.settings.in_flight:
                    answers.append(_collect(window.popleft(), keep_going=command.keep_going))
                window.append(transport.start(request, deadline.left_s()))
            while window:
                answers.append(_collect(window.popleft(), keep_going=command.keep_going))
        finally:
            for pending in window:
                pending.cancel()
        return answers


def _collect(pending: Pending, *, keep_going: bool) -> RawAnswer | BadRequest:
    try:
        return pending.result()
    except BadRequest as error:
        if not keep_going:
            raise
        return error
