"""What load generators need of a server: requests made beforehand, replies read afterwards.

Between the two a call is bytes out and bytes in, so that the generator costs the machine little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from multitask_core.prediction import Prediction


class Reply(NamedTuple):
    """One answer and the version of the model that gave it; `scores` holds the label's alone."""

    version: str
    prediction: Prediction


class Connection(Protocol):
    """An open way to the server; belongs to the event loop in which it was opened."""

    async def send(self, index: int) -> bytes:
        """Send one of the endpoint's requests; raises CallError where it is not answered."""
        ...

    async def close(self) -> None:
        """Close it; calls under way fail."""
        ...


class Endpoint(Protocol):
    """An address and a list of requests, one for each text; can be sent to another process.

    deadline_s: after which a request has failed.
    """

    texts: Sequence[str]
    deadline_s: float

    async def open(self) -> Connection:
        """Connect."""
        ...

    def read(self, reply: bytes) -> Reply:
        """Read what `send` returned; raises ServerError for anything else than an answer."""
        ...
