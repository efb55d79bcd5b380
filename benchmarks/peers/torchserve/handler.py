"""TorchServe's handler, as its worker processes load it; server.py starts them."""

# ruff: noqa: ANN401  TorchServe hands over what it has

from __future__ import annotations

from typing import Any

from model import TwoHeads
from settings import Settings


class Handler:
    """Batches of requests → label and entities of each."""

    def initialize(self, context: Any) -> None:  # noqa: ARG002
        """Load the model in the worker."""
        self.model = TwoHeads(Settings.inherited())

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:  # noqa: ARG002
        """Answer a batch of JSON bodies."""
        return self.model([request["body"]["text"] for request in requests])
