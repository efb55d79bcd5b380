"""PyTorch without padding: rows end to end, attention by torch's variable-length flash kernel.

What sentence-transformers and text-embeddings-inference call unpadding, and the strongest plain
torch baseline on a GPU. The linear layers, norms and heads are the checkpoint's own; each layer's
self-attention module is given another forward. For encoders of transformers' BERT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multitask_benchmarks.engines.host import fetch, host_buffers, to_host_tensor
from multitask_benchmarks.engines.runners import Job
from multitask_core.batching import RowLogits, Rows, unpack_rows
from multitask_core.errors import ConfigError
from multitask_train.model import MultiTaskModel

# query, key, value [N, heads, width], ends of rows [B + 1] INT32, longest row → [N, heads, width]
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


def flash(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int) -> Tensor:
    """`torch.nn.attention.varlen`: FP16 or BF16 on CUDA, from torch 2.10 on."""
    from torch.nn.attention.varlen import varlen_attn

    attended = varlen_attn(query, key, value, ends, ends, longest, longest)
    assert isinstance(attended, Tensor)
    return attended


def is_bert(model: MultiTaskModel) -> bool:
    """Whether the encoder is transformers' BERT, whose parts can be called by themselves."""
    return getattr(model.encoder.config, "model_type", "") == "bert"


class UnpaddedRunner:
    """attention: `flash`, or what a machine without CUDA can compute in its place."""

    def __init__(self, model: MultiTaskModel, device: str, attention: Attention = flash) -> None:
        if not is_bert(model):
            raise ConfigError("unpadded torch is written for transformers' BERT encoders alone")
        self._model, self._device = model, device
        schema = model.config.schema
        self._widths = len(schema.classes), len(schema.tags)
        self._rows = _Bounds()
        bert: Any = model.encoder
        for layer in bert.encoder.layer:
            _replace(layer.attention.self, self._rows, attention)
        self.facts: dict[str, Any] = {"layout": "packed"}

    def prepare(self, rows: Rows) -> Job:
        """Rows end to end [1, N], each piece's position, and where rows start and end [B + 1]."""
        lengths = [len(row) for row in rows]
        arrays = (
            np.concatenate(rows).astype(np.int64)[None],
            np.concatenate([np.arange(length) for length in lengths]).astype(np.int64)[None],
            np.cumsum([0, *lengths]).astype(np.int64),
        )
        classes, tags = self._widths
        pieces = sum(lengths)
        buffers = host_buffers(((len(rows), classes), (pieces, tags)), self._device)
        inputs = tuple(to_host_tensor(one, self._device) for one in arrays)
        return Job(rows, pieces, (*inputs, max(lengths)), buffers)

    def run(self, job: Job) -> Any:  # noqa: ANN401
        """Class logits [B, C] and token logits [N, T], FP32."""
        *tensors, longest = job.inputs
        with torch.inference_mode():
            ids, positions, ends = (one.to(self._device, non_blocking=True) for one in tensors)
            self._rows.ends, self._rows.longest = ends.int(), longest
            bert: Any = self._model.encoder
            # Its parts: the whole would look whether a mask hides anything and wait for the GPU.
            # Without token types they would be cut from a table of one window's length.
            embedded = bert.embeddings(
                input_ids=ids, token_type_ids=torch.zeros_like(ids), position_ids=positions
            )
            encoded = bert.encoder(embedded).last_hidden_state[0]
            label = self._model.sentence_head(encoded[ends[:-1]])
            return fetch((label, self._model.token_head(encoded)), job.outputs)

    def logits(self, job: Job, outputs: Any) -> list[RowLogits]:  # noqa: ANN401
        """Split by rows; copied, because a GPU's buffers are used again."""
        class_logits, token_logits = (one.numpy().copy() for one in outputs)
        return unpack_rows(job.rows, class_logits, token_logits)


class _Bounds:
    """The rows of the batch under way, for every layer. ends: INT32 [B + 1]."""

    ends: Tensor
    longest: int


def _replace(module: nn.Module, rows: _Bounds, attention: Attention) -> None:
    """Give a BertSelfAttention a forward that attends within rows of [1, N, H]."""
    layer: Any = module
    shape = (-1, layer.num_attention_heads, layer.attention_head_size)

    def forward(hidden: Tensor, *_: object, **__: object) -> tuple[Tensor]:
        query, key, value = (
            part(hidden[0]).view(shape) for part in (layer.query, layer.key, layer.value)
        )
        attended = attention(query, key, value, rows.ends, rows.longest)
        return (attended.reshape(hidden.shape),)

    layer.forward = forward
