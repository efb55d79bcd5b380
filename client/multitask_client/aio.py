"""The asyncio client: `client.Client` with await."""

from __future__ import annotations

import asyncio
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
    from multitask_client.transport import AsyncTransport

T = TypeVar("T")


class AsyncClient:
    """Predicts texts on a server; tasks of one event loop may share one client.

    Takes the arguments of `Client`. May be made anywhere; it belongs to the event loop of its
    first call.
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
        self._model = TextModel(self.settings)
        self._opened: tuple[asyncio.AbstractEventLoop, AsyncTransport] | None = None
        self._closed = False

    async def predict(
        self, texts: Sequence[str], *, only: str = "", min_entity_score: float = 0.0
    ) -> list[Prediction]:
        """Answer every text, in order.

        only: `label` or `entities` asks for one head alone. min_entity_score: entities with a lower
        score are left out. Raises BadRequest naming the first text that cannot be answered, any
        other CallError where the call failed, ConfigError for options that do not exist, and
        TypeError for a bare string.
        """
        ask = Ask(only, min_entity_score)
        return await self._run(self._model.predict(texts, ask), self.settings.deadline_s)

    async def predict_each(
        self, texts: Sequence[str], *, only: str = "", min_entity_score: float = 0.0
    ) -> list[Prediction | BadRequest]:
        """Answer every text by itself: one that cannot be answered gets its own error."""
        ask = Ask(only, min_entity_score)
        return await self._run(self._model.predict_each(texts, ask), self.settings.deadline_s)

    async def is_ready(self) -> bool:
        """Whether the server can be reached and serves the model."""
        return await self._run(self._model.is_ready(), self.settings.deadline_s)

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait for the model; raises ServerUnavailable or ModelUnavailable at the timeout."""
        await self._run(self._model.wait_until_ready(), timeout_s)

    async def statistics(self) -> Statistics:
        """The model's counters on the server."""
        return await self._transport().statistics(self.settings.deadline_s)

    async def server_version(self) -> str:
        """Version of Triton that answers."""
        return await self._transport().server_version(self.settings.deadline_s)

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        self._closed = True
        if self._opened:
            await self._opened[1].close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _transport(self) -> AsyncTransport:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        loop = asyncio.get_running_loop()
        if not self._opened:  # gRPC binds a channel to the loop that runs now
            from multitask_client.transport import AsyncTransport

            self._opened = loop, AsyncTransport(self.settings)
        if self._opened[0] is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop; make one for each")
        return self._opened[1]

    async def _run(self, conversation: Conversation[T], timeout_s: float) -> T:
        """Carry out a conversation's commands until it returns."""
        transport = self._transport()
        deadline = Deadline(timeout_s, self.settings.url)
        try:
            command = next(conversation)
            while True:
                try:
                    reply = await self._execute(transport, command, deadline)
                except CallError as error:
                    command = conversation.throw(error)
                else:
                    command = conversation.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _execute(
        self, transport: AsyncTransport, command: Command, deadline: Deadline
    ) -> object:
        if isinstance(command, InferAll):
            return await self._infer_all(transport, command, deadline)
        if isinstance(command, FetchConfig):
            return await transport.fetch_config(command.version, deadline.left_s())
        if isinstance(command, Sleep):
            await asyncio.sleep(deadline.spend_s(command.seconds))
            return None
        return await transport.is_ready(deadline.left_s())

    async def _infer_all(
        self, transport: AsyncTransport, command: InferAll, deadline: Deadline
    ) -> list[Any]:
        """Keep `in_flight` requests under way, collecting the oldest first."""
        if len(command.requests) == 1 and not command.keep_going:
            return [await transport.infer(command.requests[0], deadline.left_s())]
        answers: list[RawAnswer | BadRequest] = []
        window: deque[asyncio.Task[RawAnswer]] = deque()
        try:
            for request in command.requests:
                if len(window) == self.settings.in_flight:
                    answers.append(await _collect(window.popleft(), keep_going=command.keep_going))
                call = transport.infer(request, deadline.left_s())
                window.append(asyncio.create_task(call))
            while window:
                answers.append(await _collect(window.popleft(), keep_going=command.keep_going))
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)
        return answers


async def _collect(task: asyncio.Task[RawAnswer], *, keep_going: bool) -> RawAnswer | BadRequest:
    try:
        return await task
    except BadRequest as error:
        if not keep_going:
            raise
        return error
