"""BentoML's service, as its worker processes load it; server.py starts them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bentoml
from model import TwoHeads
from settings import Settings

SETTINGS = Settings.inherited()
# How long a request may take before BentoML refuses it, in ms; how long a batch waits for more it
# finds out by itself.
PATIENCE_MS = 60_000


@bentoml.service(
    workers=SETTINGS.workers,
    resources={"cpu": str(SETTINGS.workers * SETTINGS.threads)},
    traffic={"timeout": PATIENCE_MS // 1000},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Multitask:
    """Batches of texts → label and entities of each."""

    def __init__(self) -> None:
        self.model = TwoHeads(SETTINGS)

    @bentoml.api(
        batchable=True,
        max_batch_size=SETTINGS.max_batch,
        max_latency_ms=PATIENCE_MS,
        route="/predict",
    )
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self.model(texts)
