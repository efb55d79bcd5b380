"""A batching server with the same weights: LitServe, one model call with both heads a batch.

    PYTHON benchmarks/peers/litserve/server.py --checkpoint runs/demo --port 9000 --precision bf16

POST /predict {"text": …} → {"label", "score", "entities": [{"type", "text", "start", "end",
"score"}]}.
"""

# ruff: noqa: ANN401  LitServe hands over what it has

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import litserve
from model import TwoHeads
from settings import Settings


class Api(litserve.LitAPI):
    """Batches of texts → label and entities of each."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(max_batch_size=settings.max_batch, batch_timeout=settings.batch_timeout_s)
        self.settings = settings

    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe names the CPU
        """Load the model in the worker."""
        self.model = TwoHeads(self.settings)

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of one request."""
        return request["text"]

    def predict(self, texts: Any) -> Any:
        """Answer a batch; LitServe hands over a single text where batching is off."""
        single = isinstance(texts, str)
        answers = self.model([texts] if single else texts)
        return answers[0] if single else answers

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """An answer is JSON already."""
        return output


def main() -> None:
    """Serve until the process is ended."""
    settings = Settings.read(__doc__)
    server = litserve.LitServer(
        Api(settings),
        accelerator="cpu",
        devices=1,
        workers_per_device=settings.workers,
        timeout=False,  # how long a request may take is the caller's business, as with the others
    )
    server.run(
        host="127.0.0.1",
        port=settings.port,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
