"""A batching server with the same weights: LitServe, one model call with both heads a batch.

    PYTHON benchmarks/peers/litserve/server.py --checkpoint runs/demo --port 9000 --precision bf16

POST /predict {"text": …} → {"label", "score", "entities": [{"type", "text", "start", "end",
"score"}]}.
"""

# ruff: noqa: ANN401  torch, transformers and LitServe hand over what they have

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import litserve
import torch
from checkpoint import Checkpoint


class TwoHeads(litserve.LitAPI):
    """Batches of texts → label and entities of each."""

    def __init__(self, folder: Path, precision: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder, self.precision = folder, precision

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        torch.set_grad_enabled(False)
        source = Checkpoint(self.folder)
        self.source, self.tokenizer = source, source.tokenizer
        self.encoder = source.encoder().to(device)
        self.sentence_head = source.sentence_head().to(device)
        self.token_head = source.token_head().to(device)

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of one request."""
        return request["text"]

    def predict(self, texts: Any) -> Any:
        """Answer a batch; LitServe hands over a single text where batching is off."""
        single = isinstance(texts, str)
        answers = self._answer([texts] if single else texts)
        return answers[0] if single else answers

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """An answer is JSON already."""
        return output

    def _answer(self, texts: list[str]) -> list[dict[str, Any]]:
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        autocast = torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else None
        with torch.inference_mode(), autocast or nullcontext():
            hidden = self.encoder(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
            ).last_hidden_state
            classes = self.sentence_head(hidden[:, 0])
            tags = self.token_head(hidden)
        scores, labels = classes.float().softmax(-1).max(-1)
        tag_scores, tag_ids = tags.float().softmax(-1).max(-1)
        rows = zip(
            texts, encoded.encodings, labels.tolist(), scores.tolist(), tag_ids.tolist(),
            tag_scores.tolist(), strict=True,
        )  # fmt: skip
        return [
            {
                "label": self.source.classes[label],
                "score": score,
                "entities": entities(text, encoding, self.source.tags, ids, values),
            }
            for text, encoding, label, score, ids, values in rows
        ]


def entities(
    text: str, encoding: Any, tags: list[str], tag_ids: list[int], scores: list[float]
) -> list[dict[str, Any]]:
    """Tags at the first piece of every word → spans; an I- that continues nothing opens one."""
    groups: list[dict[str, Any]] = []
    last_word: int | None = None
    open_type = ""
    for word, (start, end), tag_id, score in zip(
        encoding.word_ids, encoding.offsets, tag_ids, scores, strict=False
    ):
        if word is None:
            continue
        if word == last_word:  # a further piece of the same word
            if open_type:
                groups[-1]["end"] = end
            continue
        last_word = word
        mark, _, kind = tags[tag_id].partition("-")
        if kind and mark == "I" and kind == open_type:
            groups[-1]["end"] = end
            groups[-1]["scores"].append(score)
        elif kind:
            groups.append({"type": kind, "start": start, "end": end, "scores": [score]})
        open_type = kind
    return [
        {
            "type": one["type"],
            "text": text[one["start"] : one["end"]],
            "start": one["start"],
            "end": one["end"],
            "score": sum(one["scores"]) / len(one["scores"]),
        }
        for one in groups
    ]


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--batch-timeout", type=float, default=0.002, help="seconds")
    options = parser.parse_args()
    api = TwoHeads(
        options.checkpoint,
        options.precision,
        max_batch_size=options.max_batch,
        batch_timeout=options.batch_timeout,
    )
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
