"""The padding-free form of the two-headed model, as Triton's ragged batching feeds it.

Linear layers, norms and heads run on the pieces of all rows in one line, [N, H]; attention alone
runs on a gathered view [B, L]. Positions, gather indices and the mask are computed inside the graph
from the rows' lengths, so no shape depends on data: L is the length of an input that is never read.

Shape suffixes: N pieces of all rows, B rows, L pieces of the longest row, A heads, D head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from multitask_core.errors import ParityError
from multitask_train.model import MultiTaskModel

# Added to the scores of padding: small enough to vanish in the softmax, and inside FP16's range.
MASKED = -10_000.0

# Optimum replaces the function while it traces, and calls this one.
_ATTENTION = nn.functional.scaled_dot_product_attention


class PackedModel(nn.Module):
    """Runs a model's encoder and heads on packed rows.

    The encoder is used as it is: every call of scaled_dot_product_attention inside it is answered
    by attention over rows. An encoder that computes attention otherwise raises ParityError.
    """

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self._positions = int(model.config.encoder_config.max_position_embeddings)
        self._layers = int(model.config.encoder_config.num_hidden_layers)

    def forward(self, input_ids: Tensor, lengths: Tensor, longest: Tensor) -> dict[str, Tensor]:
        """input_ids INT64 [N], lengths FP32 [B, 1], longest FP32 [L] → [B, C] and [N, T]."""
        # Triton counts all rows of a request as one: without the bound their view would explode.
        rows = _Rows(input_ids, lengths, longest[: self._positions])
        encoder_config = self.model.config.encoder_config
        attention = _RowAttention(rows, hasattr(encoder_config, "local_attention"))
        with _positions(self.model.encoder, rows.position_N) as positions, attention:
            hidden_NH = self.model.encoder(  # noqa: N806
                input_ids=input_ids[None], **positions
            ).last_hidden_state[0]
        if attention.calls != self._layers:
            kind = self.model.config.encoder["model_type"]
            raise ParityError(
                f"a {kind} encoder cannot be packed: {attention.calls} of its {self._layers} "
                "layers call scaled_dot_product_attention"
            )
        cls_BH = hidden_NH.index_select(0, rows.first_B)  # noqa: N806
        return {
            "class_logits": self.model.sentence_head(cls_BH),
            "token_logits": self.model.token_head(hidden_NH),
        }


class _Rows:
    """Where each row stands in the line of pieces, and each piece in the view [B, L]."""

    def __init__(self, input_ids: Tensor, lengths: Tensor, longest: Tensor) -> None:
        length_B = lengths.to(torch.int64)[:, 0]  # noqa: N806
        end_B = torch.cumsum(length_B, 0)  # noqa: N806
        index_N = torch.arange(input_ids.shape[0])  # noqa: N806
        row_N = (index_N[:, None] >= end_B[None, :]).to(torch.int64).sum(1)  # noqa: N806
        column_L = torch.arange(longest.shape[0])  # noqa: N806
        self.first_B = end_B - length_B
        self.position_N = index_N - self.first_B.index_select(0, row_N)
        # Columns behind a row's end repeat its last piece; the mask takes them out again.
        self.gather_BL = torch.minimum(
            self.first_B[:, None] + column_L[None, :], end_B[:, None] - 1
        )
        self.scatter = row_N * longest.shape[0] + self.position_N
        self.padding_BL = column_L[None, :] >= length_B[:, None]


class _RowAttention(TorchFunctionMode):
    """Answers scaled_dot_product_attention on [1, A, N, D] as if every row stood by itself.

    local: layers look at near pieces only, through a mask that is gathered too. Other encoders'
    masks hold nothing but padding, of which there is none.
    """

    def __init__(self, rows: _Rows, local: bool) -> None:
        super().__init__()
        self._rows = rows
        self._mask = rows.padding_BL.float()[:, None, None, :] * MASKED
        self._local = local
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is not _ATTENTION:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        return self._attend(**_bound(*args, **(kwargs or {})))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float | None
    ) -> Tensor:
        heads, width = int(query.shape[1]), int(query.shape[3])  # constants of the graph
        mask = self._mask + self._gathered(bias) if self._local and bias is not None else self._mask
        # Scaled before the product, so that FP16 need not hold scores of sqrt(D) times the size.
        query_BALD = self._view(query * (scale or width**-0.5))  # noqa: N806
        key_BADL = self._view(key).transpose(2, 3)  # noqa: N806
        scores = torch.matmul(query_BALD, key_BADL) + mask
        context = torch.matmul(torch.softmax(scores, -1), self._view(value))
        line = context.transpose(1, 2).reshape(-1, heads, width)
        return line.index_select(0, self._rows.scatter)[None].transpose(1, 2)

    def _view(self, tensor: Tensor) -> Tensor:
        """[1, A, N, D] → [B, A, L, D]."""
        heads, width = int(tensor.shape[1]), int(tensor.shape[3])
        line_NAD = tensor.transpose(1, 2).reshape(-1, heads, width)  # noqa: N806
        return line_NAD[self._rows.gather_BL].transpose(1, 2)

    def _gathered(self, mask: Tensor) -> Tensor:
        """An additive mask over the line of pieces, [1, 1, N, N] → [B, 1, L, L]."""
        index_BL = self._rows.gather_BL  # noqa: N806
        near = mask[0, 0][index_BL[:, :, None], index_BL[:, None, :]][:, None]
        return torch.maximum(near, torch.tensor(MASKED))


@contextmanager
def _positions(encoder: nn.Module, position_N: Tensor) -> Iterator[dict[str, Tensor]]:  # noqa: N803
    """Tell an encoder where each piece stands in its row, as arguments or in its buffer."""
    takes = inspect.signature(encoder.forward).parameters
    embeddings: Any = encoder.embeddings
    arguments = {}
    if "token_type_ids" in takes:
        arguments["token_type_ids"] = torch.zeros(1, 1, dtype=torch.int64)
    if "position_ids" in takes:
        # RoBERTa and its kin count positions from behind the padding's.
        first = embeddings.padding_idx + 1 if hasattr(embeddings, "padding_idx") else 0
        yield {**arguments, "position_ids": (position_N + first)[None]}
        return
    usual = embeddings.position_ids
    embeddings.position_ids = position_N[None]
    try:
        yield arguments
    finally:
        embeddings.position_ids = usual


def _bound(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001  evaluation mode
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """The arguments of torch's function that matter here."""
    if is_causal:
        raise ParityError("a causal encoder cannot be packed: its rows look one way only")
    return {"query": query, "key": key, "value": value, "bias": attn_mask, "scale": scale}
