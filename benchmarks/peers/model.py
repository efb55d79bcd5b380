"""Both heads on one pass of the encoder: batches of texts → the answers that every peer gives.

What a team would write around the checkpoint with torch alone; the peers differ in what they put
around it. The FastAPI peer alone does without: it runs the `transformers` pipelines.
"""

# ruff: noqa: ANN401  torch and transformers hand over what they have

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from checkpoint import Checkpoint
from settings import Settings


class TwoHeads:
    """The model of one worker.

    bf16: the encoder's weights and activations are bfloat16, as with `model.to(torch.bfloat16)`;
    the heads stay in FP32.
    """

    def __init__(self, settings: Settings) -> None:
        torch.set_grad_enabled(False)
        torch.set_num_threads(settings.threads)
        source = Checkpoint(Path(settings.checkpoint))
        self.classes, self.tags, self.tokenizer = source.classes, source.tags, source.tokenizer
        dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self.encoder = source.encoder().to(dtype)
        self.sentence_head, self.token_head = source.sentence_head(), source.token_head()

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        """One answer a text: label, score, and entities with code point offsets."""
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.encoder(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
            ).last_hidden_state.float()
            scores, labels = self.sentence_head(hidden[:, 0]).softmax(-1).max(-1)
            tag_scores, tag_ids = self.token_head(hidden).softmax(-1).max(-1)
        rows = zip(
            texts, encoded.encodings, labels.tolist(), scores.tolist(), tag_ids.tolist(),
            tag_scores.tolist(), strict=True,
        )  # fmt: skip
        return [
            {
                "label": self.classes[label],
                "score": score,
                "entities": entities(text, encoding, self.tags, ids, values),
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
