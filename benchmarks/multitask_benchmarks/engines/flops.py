"""How much arithmetic a model needs: the one place where floating-point operations are counted.

A product of [m, k] with [k, n] counts 2·m·k·n. For an encoder like BERT, with H the hidden width,
`weights` all matrix weights of its layers, and a row of L pieces:

    layers' linear products      2 · weights               for each piece
    attention, QKᵀ and PV        4 · L · H · layers        for each piece (2·L·H each)
    token head, H → T tags       2 · H · T                 for each piece
    sentence head, H → H → C     2 · (H² + H · C)          for each row

Norms, activations and lookups are left out, as is usual (Kaplan et al. 2020, arXiv 2001.08361,
table 1; Hoffmann et al. 2022, arXiv 2203.15556, appendix F). Padding is not counted: it is work
that nobody asked for, and shows as lower utilisation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multitask_train.model import MultiTaskConfig, MultiTaskModel

# How far the formula may stand from an operator-by-operator count before it is not used.
TOLERANCE = 0.01
# Of the row that is counted: attention's share grows with the row, and shows in a long one alone.
_COUNTED_PIECES = 384


@dataclass(frozen=True)
class ModelShape:
    """What decides the arithmetic.

    hidden, layers, classes, tags: sizes. products: (width in, width out) of the encoder's linear
    layers, each with how often it occurs. positions: the longest row that the encoder takes.
    """

    hidden: int
    layers: int
    classes: int
    tags: int
    products: tuple[tuple[int, int, int], ...]
    positions: int

    @property
    def counted_pieces(self) -> int:
        """Length of the row whose operators are counted, to check the formula."""
        return min(_COUNTED_PIECES, self.positions)

    @property
    def weights(self) -> int:
        """Matrix weights that every piece meets."""
        return sum(inner * outer * count for inner, outer, count in self.products)

    def flops(self, lengths: Iterable[int]) -> float:
        """Floating-point operations for rows of so many real pieces."""
        piece = 2 * self.weights + 2 * self.hidden * self.tags
        row = 2 * (self.hidden * self.hidden + self.hidden * self.classes)
        attention = 4 * self.hidden * self.layers
        return float(sum(length * (piece + attention * length) + row for length in lengths))


def shape_of(config: MultiTaskConfig) -> ModelShape:
    """Read a checkpoint's config; no weights are loaded."""
    import torch

    from multitask_train.model import MultiTaskModel

    with torch.device("meta"):
        model = MultiTaskModel(config)
    linears = [one for one in model.encoder.modules() if isinstance(one, torch.nn.Linear)]
    found = Counter((one.in_features, one.out_features) for one in linears)
    inner = model.encoder.config
    return ModelShape(
        hidden=int(inner.hidden_size),
        layers=int(inner.num_hidden_layers),
        classes=len(config.schema.classes),
        tags=len(config.schema.tags),
        products=tuple((*shape, count) for shape, count in sorted(found.items())),
        positions=_positions(inner),
    )


def count_flops(model: MultiTaskModel, length: int) -> float:
    """Count one row of `length` pieces operator by operator: `torch.utils.flop_counter`.

    Attention runs as plain products meanwhile, which the counter knows on every device.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.ones((1, length), dtype=torch.int64, device=model.device)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as c:
        model(ids, torch.ones_like(ids))
    return float(c.get_total_flops())


def _positions(config: object) -> int:
    """RoBERTa and its kin number positions from the padding id on."""
    limit = int(getattr(config, "max_position_embeddings", 0)) or 512
    shifted = getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return limit - 2 if shifted else limit
