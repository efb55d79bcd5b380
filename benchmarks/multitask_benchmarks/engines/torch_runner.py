"""PyTorch: the checkpoint as it is, in lower precision, compiled, with flash attention alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from multitask_benchmarks.engines.catalogue import COMPILED, FLASH, UNPADDED, Subject
from multitask_benchmarks.engines.flops import count_flops, shape_of
from multitask_benchmarks.engines.host import fetch, host_buffers, to_host_tensor
from multitask_benchmarks.engines.runners import Job, Runner, Source
from multitask_benchmarks.engines.unpadded import UnpaddedRunner, is_bert
from multitask_core.batching import Int64, RowLogits, Rows, pad_rows, unpad_rows
from multitask_core.errors import ConfigError
from multitask_train import checkpoint
from multitask_train.model import MultiTaskConfig, MultiTaskModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# More shapes than the default of 8 would silently run uncompiled.
_SHAPES_COMPILED = 256

Forward = Callable[..., tuple[Tensor, Tensor]]


def open_torch(subject: Subject, source: Source) -> Runner:
    """Load the checkpoint for one of torch's modes."""
    model = load_model(subject, source)
    if subject.mode == UNPADDED:
        return UnpaddedRunner(model, subject.device)
    return PaddedRunner(model, subject, source)


def load_model(subject: Subject, source: Source) -> MultiTaskModel:
    """The checkpoint's model with its weights in the subject's precision, on its device."""
    torch.set_num_threads(source.cpus)
    model, _ = checkpoint.load(source.checkpoint)
    place: Any = {"device": subject.device, "dtype": DTYPES[subject.precision]}
    nn.Module.to(model, **place)
    return model


class PaddedRunner:
    """Rows padded to the longest of their batch, as transformers takes them."""

    def __init__(self, model: MultiTaskModel, subject: Subject, source: Source) -> None:
        self._model, self._device = model, subject.device
        self._flash = subject.mode == FLASH
        config = model.config
        assert isinstance(config, MultiTaskConfig)
        schema = config.schema
        self._widths = len(schema.classes), len(schema.tags)
        self._forward: Forward = self._plain
        self._without_mask = False
        self.facts: dict[str, Any] = {"layout": "padded", "threads": source.cpus}
        if subject.precision == "fp32" and not subject.mode:
            self.facts["counted_flops"] = count_flops(model, shape_of(config).counted_pieces)
        if subject.mode == COMPILED:
            self._forward = _compiled(self._plain, source)
            self._without_mask = is_bert(model)
            self.facts["compiled"] = source.compile_shapes
            self.facts["mask"] = (
                "none where rows have one length" if self._without_mask else "always, dense"
            )

    def prepare(self, rows: Rows) -> Job:
        """Pad on the right.

        Raises ConfigError for rows of different lengths where flash attention, which takes no mask,
        was asked for alone.
        """
        if self._flash and len({len(row) for row in rows}) > 1:
            raise ConfigError("SDPA's flash kernel takes no mask, so no rows of different lengths")
        arrays: Sequence[Int64] = pad_rows(rows)
        shape = arrays[0].shape
        if self._without_mask and arrays[1].all():
            arrays = arrays[:1]
        classes, tags = self._widths
        buffers = host_buffers(((len(rows), classes), (*shape, tags)), self._device)
        inputs = tuple(to_host_tensor(one, self._device) for one in arrays)
        return Job(rows, int(arrays[0].size), inputs, buffers)

    def run(self, job: Job) -> Any:  # noqa: ANN401
        """Both heads' logits, FP32."""
        with torch.inference_mode(), self._kernel():
            inputs = [one.to(self._device, non_blocking=True) for one in job.inputs]
            return fetch(self._forward(*inputs), job.outputs)

    def logits(self, job: Job, outputs: Any) -> list[RowLogits]:  # noqa: ANN401
        """Split by rows; copied, because a GPU's buffers are used again."""
        class_logits, token_logits = (one.numpy().copy() for one in outputs)
        return unpad_rows(job.rows, class_logits, token_logits)

    def _plain(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both heads' logits; without a mask for rows of one length, of BERT encoders alone.

        transformers looks whether a mask hides anything, and leaves it out where it does not, but
        not while a compiler traces it: a dense mask keeps SDPA's flash kernel from being used.
        """
        if mask is None:
            bert: Any = self._model.encoder
            hidden = bert.encoder(bert.embeddings(input_ids=ids)).last_hidden_state
            return self._model.sentence_head(hidden[:, 0]), self._model.token_head(hidden)
        output = self._model(ids, mask)
        return output.class_logits, output.token_logits

    def _kernel(self) -> AbstractContextManager[None]:
        """With flash alone allowed, a call that cannot use it fails instead of falling back."""
        return sdpa_kernel(SDPBackend.FLASH_ATTENTION) if self._flash else nullcontext()


def _compiled(forward: Forward, source: Source) -> Forward:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = _SHAPES_COMPILED
    dynamic = source.compile_shapes == "dynamic"
    compiled: Forward = torch.compile(forward, dynamic=dynamic)
    return compiled
