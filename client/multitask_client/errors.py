"""What a call to a server can end in.

    multitask_core.errors.ClientError
    └── CallError              status, url
        ├── BadRequest         index       the server refuses a text, or it cannot be sent
        ├── DeadlineExceeded               no answer within the deadline
        ├── ServerUnavailable              nobody answers at the address, or the queue is full
        ├── ModelUnavailable               the server does not serve this model or version now
        └── ServerError                    anything else, an answer that cannot be read included

Worth another try later: DeadlineExceeded, ServerUnavailable and ModelUnavailable.
"""

from __future__ import annotations

import re

from multitask_core.errors import ClientError


class CallError(ClientError):
    """A call failed.

    status: gRPC's name for it, such as `UNAVAILABLE`; empty where the client itself gave up.
    url: the server called.
    """

    def __init__(self, message: str, *, status: str = "", url: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.url = url


class BadRequest(CallError):  # noqa: N818  gRPC's own terms
    """A text cannot be predicted; `index` says which of the caller's texts, where that is known."""

    def __init__(
        self, message: str, *, index: int | None = None, status: str = "", url: str = ""
    ) -> None:
        super().__init__(message, status=status, url=url)
        self.index = index


class DeadlineExceeded(CallError):  # noqa: N818  gRPC's own terms
    """No answer within the deadline."""


class ServerUnavailable(CallError):  # noqa: N818  gRPC's own terms
    """Nobody answers at the address, or the server is too busy to take the request."""


class ModelUnavailable(CallError):  # noqa: N818  gRPC's own terms
    """The server answers, but does not serve this model or this version now."""


class ServerError(CallError):
    """The server failed, or its answer is not that of a text model."""


_ADVICE: dict[type[CallError], str] = {
    DeadlineExceeded: "raise deadline_s, send fewer texts a call, or look at the server's load",
    ServerUnavailable: "check that it runs, has room and that this is its gRPC port, usually 8001",
    ModelUnavailable: "check the model's name and version and whether it has finished loading",
}
# Triton's words for a model that is missing, unloaded or named by an impossible version.
_NO_MODEL = re.compile(r"Request for unknown model|failed to get model version")


def from_status(status: str, message: str, url: str) -> CallError:
    """Turn a gRPC status (`UNAVAILABLE` or `StatusCode.UNAVAILABLE`) and message into an error."""
    status = status.rpartition(".")[2]
    kind = _kind(status, message)
    if kind is BadRequest:  # the message is about a text and stands for itself
        return BadRequest(message, status=status, url=url)
    advice = f" ({_ADVICE[kind]})" if kind in _ADVICE else ""
    return kind(f"{url}: {message}{advice}", status=status, url=url)


def _kind(status: str, message: str) -> type[CallError]:
    if status == "NOT_FOUND" or _NO_MODEL.search(message):
        return ModelUnavailable
    kinds: dict[str, type[CallError]] = {
        "INVALID_ARGUMENT": BadRequest,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
        "UNAVAILABLE": ServerUnavailable,
    }
    return kinds.get(status, ServerError)
