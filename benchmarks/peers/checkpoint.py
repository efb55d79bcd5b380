"""A checkpoint of this toolkit read with torch and transformers alone, for the peers' servers.

The peers run in environments of their own, where the toolkit is not installed: what a team would
write who have the two-headed checkpoint and serve it with what everybody uses.

Shapes: B rows, L pieces, H hidden width, C classes, T tags.
"""

# ruff: noqa: ANN401  torch, transformers and LitServe hand over what they have

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput


class Checkpoint:
    """Encoder's config, labels, weights and tokenizer of a checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        values: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        inner = dict(values["encoder"])
        self.config: PretrainedConfig = AutoConfig.for_model(inner.pop("model_type"), **inner)
        self.classes: list[str] = values["classes"]
        self.tags = ["O"] + [f"{p}-{kind}" for kind in values["entity_types"] for p in "BI"]
        self.weights = load_file(folder / "model.safetensors")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
        self.tokenizer.model_max_length = values["window_length"]

    def encoder(self) -> PreTrainedModel:
        """A fresh copy of the encoder with its weights."""
        accepted = inspect.signature(AutoModel._model_mapping[type(self.config)]).parameters
        options = {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}
        model = AutoModel.from_config(self.config, **options)
        model.load_state_dict(self.part("encoder"))
        return model.eval()

    def sentence_head(self) -> nn.Module:
        """[CLS] [B, H] → class logits [B, C]."""
        head = _SentenceHead(self.config.hidden_size, len(self.classes))
        head.load_state_dict(self.part("sentence_head"))
        return head.eval()

    def token_head(self) -> nn.Module:
        """[B, L, H] → tag logits [B, L, T]."""
        head = nn.Linear(self.config.hidden_size, len(self.tags))
        head.load_state_dict(self.part("token_head.output"))
        return head.eval()

    def part(self, name: str) -> dict[str, Tensor]:
        """The weights under a prefix, without it."""
        start = f"{name}."
        found = {key: value for key, value in self.weights.items() if key.startswith(start)}
        return {key.removeprefix(start): value for key, value in found.items()}


class _SentenceHead(nn.Module):
    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.dense, self.output = nn.Linear(hidden, hidden), nn.Linear(hidden, classes)

    def forward(self, cls: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.tanh(self.dense(cls)))
        return logits


class SentenceClassifier(PreTrainedModel):
    """The encoder with the sentence head alone, as a text-classification pipeline takes it."""

    config_class = PretrainedConfig

    def __init__(self, source: Checkpoint) -> None:
        super().__init__(_labelled(source, source.classes))
        self.encoder, self.head = source.encoder(), source.sentence_head()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        """Class logits."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return SequenceClassifierOutput(logits=self.head(hidden.last_hidden_state[:, 0]))


class TokenClassifier(PreTrainedModel):
    """The encoder with the token head alone, as a token-classification pipeline takes it."""

    config_class = PretrainedConfig

    def __init__(self, source: Checkpoint) -> None:
        super().__init__(_labelled(source, source.tags))
        self.encoder, self.head = source.encoder(), source.token_head()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        """Tag logits."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return TokenClassifierOutput(logits=self.head(hidden.last_hidden_state))


def _labelled(source: Checkpoint, labels: list[str]) -> PretrainedConfig:
    config = type(source.config).from_dict(source.config.to_dict())
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    return config
