"""The model: any Hugging Face encoder, a sentence head on [CLS], a token head on every piece.

Shape suffixes: B rows, L pieces, H hidden width, C classes, T BIO tags.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging
from transformers.utils.generic import ModelOutput

from multitask_core.errors import ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.text import Windowing

IGNORED = -100


class MultiTaskConfig(PretrainedConfig):
    """Encoder, labels and windowing of one checkpoint.

    encoder: the encoder's own config as a dict with its `model_type`. classes, entity_types: see
    LabelSchema. dropout: before both heads' output layers. window_length, window_stride: see
    Windowing; plain `max_length` means something else to PretrainedConfig.
    """

    model_type = "multitask-transformer"

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        classes: list[str] | None = None,
        entity_types: list[str] | None = None,
        dropout: float = 0.1,
        window_length: int = 256,
        window_stride: int = 64,
        **kwargs: Any,  # noqa: ANN401  what PretrainedConfig takes
    ) -> None:
        self.encoder = dict(encoder or {"model_type": "bert"})
        self.classes = list(classes or ["none"])
        self.entity_types = list(entity_types or ["none"])
        self.dropout = dropout
        self.window_length = window_length
        self.window_stride = window_stride
        super().__init__(**kwargs)

    @property
    def schema(self) -> LabelSchema:
        """The label schema of both heads."""
        return LabelSchema(tuple(self.classes), tuple(self.entity_types))

    @property
    def windowing(self) -> Windowing:
        """How texts are cut into windows."""
        return Windowing(self.window_length, self.window_stride)

    @property
    def encoder_config(self) -> PretrainedConfig:
        """The encoder's config object; whatever it was published in, weights here are FP32."""
        left_out = ("model_type", "dtype", "torch_dtype")
        values = {key: value for key, value in self.encoder.items() if key not in left_out}
        return AutoConfig.for_model(self.encoder["model_type"], **values)


@dataclass
class MultiTaskOutput(ModelOutput):
    """Logits of both heads, class_logits [B, C] and token_logits [B, L, T], and their losses.

    A loss is None when its labels were not given; `loss` is the sum of those that are there.
    """

    loss: Optional[Tensor] = None  # noqa: UP045  ModelOutput reads the annotation at run time
    class_logits: Optional[Tensor] = None  # noqa: UP045
    token_logits: Optional[Tensor] = None  # noqa: UP045
    class_loss: Optional[Tensor] = None  # noqa: UP045
    token_loss: Optional[Tensor] = None  # noqa: UP045


class SentenceHead(nn.Module):
    """[CLS] vector [B, H] → class logits [B, C] through one tanh layer, as BERT's own pooler.

    No layer norm stands in a head: padding-free graphs treat the last one as the encoder's end.
    """

    def __init__(self, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, classes)

    def forward(self, cls_BH: Tensor) -> Tensor:  # noqa: N803
        """Class logits [B, C]."""
        logits_BC: Tensor = self.output(self.dropout(torch.tanh(self.dense(cls_BH))))  # noqa: N806
        return logits_BC


class TokenHead(nn.Module):
    """Piece vectors [B, L, H] → BIO tag logits [B, L, T]."""

    def __init__(self, hidden: int, tags: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, tags)

    def forward(self, hidden_BLH: Tensor) -> Tensor:  # noqa: N803
        """Tag logits [B, L, T]."""
        logits_BLT: Tensor = self.output(self.dropout(hidden_BLH))  # noqa: N806
        return logits_BLT


class MultiTaskModel(PreTrainedModel):
    """One encoder, two heads, one forward pass."""

    config_class = MultiTaskConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: MultiTaskConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        inner = config.encoder_config
        self.encoder = encoder or AutoModel.from_config(inner, **_no_pooler(inner))
        schema = config.schema
        hidden = self.encoder.config.hidden_size
        self.sentence_head = SentenceHead(hidden, len(schema.classes), config.dropout)
        self.token_head = TokenHead(hidden, len(schema.tags), config.dropout)
        for head in (self.sentence_head, self.token_head):
            head.apply(self._init_weights)

    @classmethod
    def from_encoder(
        cls,
        encoder: str | Path,
        schema: LabelSchema,
        *,
        dropout: float = 0.1,
        windowing: Windowing | None = None,
    ) -> MultiTaskModel:
        """Fresh heads on a pretrained encoder (a folder or a hub id).

        Raises ConfigError for a checkpoint of this class; transformers raises what it likes.
        """
        windowing = windowing or Windowing()
        inner = AutoConfig.from_pretrained(encoder)
        if isinstance(inner, MultiTaskConfig):
            raise ConfigError(
                f"model.encoder {encoder} is a checkpoint with heads; name it as model.start_from, "
                "and as model.encoder what it was trained from"
            )
        with _quiet():  # that the encoder's own pooler is left out needs no warning
            pretrained = AutoModel.from_pretrained(encoder, **_no_pooler(inner))
        config = MultiTaskConfig(
            encoder=inner.to_dict(),
            classes=list(schema.classes),
            entity_types=list(schema.entity_types),
            dropout=dropout,
            window_length=windowing.max_length,
            window_stride=windowing.stride,
        )
        return cls(config, pretrained)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        class_labels: Tensor | None = None,
        token_labels: Tensor | None = None,
    ) -> MultiTaskOutput:
        """Run both heads on input_ids and attention_mask INT64 [B, L].

        class_labels [B] and token_labels [B, L]: -100 where a row or piece does not count.
        """
        hidden_BLH = self.encoder(  # noqa: N806
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        class_logits = self.sentence_head(hidden_BLH[:, 0])
        token_logits = self.token_head(hidden_BLH)
        class_loss = _loss(class_logits, class_labels)
        token_loss = _loss(token_logits.flatten(0, 1), token_labels)
        losses = [loss for loss in (class_loss, token_loss) if loss is not None]
        return MultiTaskOutput(
            loss=torch.stack(losses).sum() if losses else None,
            class_logits=class_logits,
            token_logits=token_logits,
            class_loss=class_loss,
            token_loss=token_loss,
        )

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


def _loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    """Mean cross-entropy over the labels that count; None when none does."""
    if labels is None or not bool((labels != IGNORED).any()):
        return None
    return nn.functional.cross_entropy(logits.float(), labels.flatten(), ignore_index=IGNORED)


def _no_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """Leave the encoder's own pooler out where it has one: no head reads it."""
    architecture: Any = MODEL_MAPPING[type(config)]
    known = inspect.signature(architecture).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


@contextmanager
def _quiet() -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


AutoConfig.register(MultiTaskConfig.model_type, MultiTaskConfig, exist_ok=True)
AutoModel.register(MultiTaskConfig, MultiTaskModel, exist_ok=True)
