"""What most teams deploy: FastAPI and two `transformers` pipelines, one a task, one process.

    PYTHON benchmarks/peers/fastapi/server.py --checkpoint runs/demo --port 9000

POST /predict {"text": …} → {"label", "score", "entities": [{"type", "text", "start", "end",
"score"}]}. Every request runs both pipelines, each with an encoder of its own; nothing is batched.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import uvicorn
from checkpoint import Checkpoint, SentenceClassifier, TokenClassifier
from fastapi import FastAPI
from pydantic import BaseModel
from settings import Settings
from transformers import TextClassificationPipeline, TokenClassificationPipeline


class Request(BaseModel):
    """One text."""

    text: str


def create() -> FastAPI:
    """The application around both pipelines, in each worker."""
    settings = Settings.inherited()
    torch.set_grad_enabled(False)
    torch.set_num_threads(settings.threads)
    source = Checkpoint(Path(settings.checkpoint))
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    classify = TextClassificationPipeline(
        model=SentenceClassifier(source).eval().to(dtype), tokenizer=source.tokenizer, device="cpu"
    )
    tag = TokenClassificationPipeline(
        model=TokenClassifier(source).eval().to(dtype),
        tokenizer=source.tokenizer,
        aggregation_strategy="first",
        device="cpu",
    )
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    def predict(request: Request) -> dict[str, Any]:
        (found,) = classify([request.text], truncation=True)
        groups = tag(request.text)
        return {
            "label": found["label"],
            "score": found["score"],
            "entities": [
                {
                    "type": one["entity_group"],
                    "text": request.text[one["start"] : one["end"]],
                    "start": one["start"],
                    "end": one["end"],
                    "score": float(one["score"]),
                }
                for one in groups
            ],
        }

    return app


def main() -> None:
    """Serve until the process is ended."""
    settings = Settings.read(__doc__)
    settings.export()
    uvicorn.run(
        "server:create",
        factory=True,
        workers=settings.workers,
        # On a busy machine torch loads for longer than the 5 s after which workers are replaced.
        timeout_worker_healthcheck=120,
        host="127.0.0.1",
        port=settings.port,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
