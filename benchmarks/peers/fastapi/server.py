"""What most teams deploy: FastAPI and two `transformers` pipelines, one a task, one process.

    PYTHON benchmarks/peers/fastapi/server.py --checkpoint runs/demo --port 9000

POST /predict {"text": …} → {"label", "score", "entities": [{"type", "text", "start", "end",
"score"}]}. Every request runs both pipelines, each with an encoder of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import uvicorn
from checkpoint import Checkpoint, SentenceClassifier, TokenClassifier
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import TextClassificationPipeline, TokenClassificationPipeline


class Request(BaseModel):
    """One text."""

    text: str


def build(folder: Path) -> FastAPI:
    """The application around both pipelines."""
    source = Checkpoint(folder)
    classify = TextClassificationPipeline(
        model=SentenceClassifier(source).eval(), tokenizer=source.tokenizer, device="cpu"
    )
    tag = TokenClassificationPipeline(
        model=TokenClassifier(source).eval(),
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", choices=["fp32"], default="fp32")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    app = build(options.checkpoint)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
