"""A peer over HTTP: POST with {"text": …}, kept-alive connections, no HTTP library.

The peers' servers answer with a Content-Length and keep connections open, so a few lines on
asyncio's streams are enough, and cost a tenth of what a general client does.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from multitask_benchmarks.serving.endpoint import Reply
from multitask_client.errors import ServerError, ServerUnavailable
from multitask_core.prediction import Entity, Prediction

_HEAD = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpForm(NamedTuple):
    """path: of POST; field: where the JSON has its text; listed: texts and answers are lists."""

    path: str = "/predict"
    field: str = "text"
    listed: bool = False


class HttpEndpoint:
    """A server at host:port that answers {"text"} with {"label", "score", "entities"}."""

    def __init__(
        self,
        url: str,
        texts: Sequence[str],
        form: HttpForm = HttpForm(),  # noqa: B008  immutable
        *,
        deadline_s: float = 60.0,
    ) -> None:
        self.url, self.texts, self.form, self.deadline_s = url, texts, form, deadline_s
        self.requests = [_request(url, text, form) for text in texts]

    async def open(self) -> HttpConnection:
        """Nothing is connected before the first call."""
        return HttpConnection(self)

    def read(self, reply: bytes) -> Reply:
        """Parse the JSON body."""
        try:
            value = json.loads(reply)
            if self.form.listed:
                (value,) = value
            entities = tuple(Entity(**one) for one in value["entities"])
            scores = {value["label"]: float(value["score"])}
            return Reply("", Prediction(value["label"], scores, entities))
        except (ValueError, TypeError, KeyError) as error:
            raise ServerError(f"{self.url}: no answer in {reply[:200]!r}", url=self.url) from error


class HttpConnection:
    """Connections of one endpoint: as many as there are calls at once, used again and again."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[Stream] = []

    async def send(self, index: int) -> bytes:
        """Send one request and return the body; raises CallError."""
        url = self._endpoint.url
        try:
            exchange = self._exchange(self._endpoint.requests[index])
            status, body = await asyncio.wait_for(exchange, self._endpoint.deadline_s)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            raise ServerUnavailable(f"{url}: {error!r}", status="UNAVAILABLE", url=url) from error
        if status != b"200":
            message = f"{url}: {body[:200].decode(errors='replace')}"
            raise ServerError(message, status=f"HTTP {status.decode()}", url=url)
        return body

    async def close(self) -> None:
        """Close what is idle."""
        for _, writer in self._idle:
            writer.close()
        await asyncio.gather(
            *(writer.wait_closed() for _, writer in self._idle), return_exceptions=True
        )
        self._idle.clear()

    async def _exchange(self, request: bytes) -> tuple[bytes, bytes]:
        """Status code and body of one request, on an idle connection where there is one.

        Servers close what was idle for some seconds, and may do so just as the request is sent: it
        is sent once more, on a new connection, where nothing of an answer has come.
        """
        if (stream := self._take_idle()) is not None:
            try:
                return await self._ask(stream, request)
            except ConnectionError:
                pass
            except asyncio.IncompleteReadError as error:
                if error.partial or error.expected is not None:
                    raise
        return await self._ask(await self._connect(), request)

    async def _ask(self, stream: Stream, request: bytes) -> tuple[bytes, bytes]:
        """One request on a connection, which is kept where that went well."""
        reader, writer = stream
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
        except BaseException:
            writer.close()
            raise
        self._idle.append(stream)
        return head.split(b" ", 2)[1], body

    def _take_idle(self) -> Stream | None:
        """The connection used last; what the server has closed meanwhile is dropped."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> Stream:
        host, _, port = self._endpoint.url.rpartition(":")
        return await asyncio.open_connection(host, int(port))


def _request(url: str, text: str, form: HttpForm) -> bytes:
    body = json.dumps({form.field: [text] if form.listed else text}).encode()
    head = _HEAD.format(path=form.path, host=url) + f"Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
