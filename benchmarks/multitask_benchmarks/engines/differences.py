"""Does an engine compute the same model? Its logits against PyTorch FP32's, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from multitask_core.batching import RowLogits
from multitask_export.variants import BUDGETS

# INT8 moves logits by as much as it likes; a broken graph agrees no more than by chance.
LEAST_EQUAL = 0.8


@dataclass
class Difference:
    """largest: absolute difference of a logit. equal_labels, equal_tags: how many argmaxes agree
    out of `rows` sentences and `pieces` pieces.
    """

    largest: float = 0.0
    rows: int = 0
    pieces: int = 0
    equal_labels: int = 0
    equal_tags: int = 0

    def add(self, found: Sequence[RowLogits], expected: Sequence[RowLogits]) -> str:
        """Compare more rows; returns why they cannot be compared, empty where they can."""
        shapes, wanted = [[_shapes(one) for one in rows] for rows in (found, expected)]
        if shapes != wanted:
            return f"its logits have the shapes {shapes[:3]}, the reference's {wanted[:3]}"
        for (label, tags), (wanted_label, wanted_tags) in zip(found, expected, strict=True):
            # A NaN must not pass for small.
            gaps = [np.abs(label - wanted_label).max(), np.abs(tags - wanted_tags).max()]
            self.largest = float(np.max([self.largest, *(np.nan_to_num(gaps, nan=np.inf))]))
            self.rows += 1
            self.pieces += len(tags)
            self.equal_labels += int(label.argmax() == wanted_label.argmax())
            self.equal_tags += int((tags.argmax(-1) == wanted_tags.argmax(-1)).sum())
        return ""

    @property
    def label_share(self) -> float:
        """Sentences with the same likeliest class."""
        return self.equal_labels / max(1, self.rows)

    @property
    def tag_share(self) -> float:
        """Pieces with the same likeliest tag."""
        return self.equal_tags / max(1, self.pieces)

    def fault(self, precision: str) -> str:
        """Why this is no such precision of the same model; empty where it is.

        Bounds are the export's (`variants.BUDGETS`); INT8 has one on its answers alone.
        """
        bound = BUDGETS[precision].logits
        if bound is not None and self.largest > bound:
            return f"a logit differs by {self.largest:.1e}, in {precision} at most {bound:g} may"
        share = min(self.label_share, self.tag_share)
        if share < LEAST_EQUAL or not np.isfinite(self.largest):
            return (
                f"{self.label_share:.0%} of labels and {self.tag_share:.0%} of tags are the "
                f"reference's, at least {LEAST_EQUAL:.0%} should be"
            )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a difference that is not finite is named, not written as a number."""
        shares = {"label_share": round(self.label_share, 5), "tag_share": round(self.tag_share, 5)}
        largest = float(f"{self.largest:.3g}") if np.isfinite(self.largest) else "not finite"
        return {**asdict(self), "largest": largest, **shares}


def _shapes(logits: RowLogits) -> tuple[tuple[int, ...], ...]:
    return tuple(one.shape for one in logits)
