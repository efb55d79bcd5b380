"""Does an engine compute the same model? Its logits against PyTorch FP32's, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitask_core.batching import RowLogits
from multitask_export.variants import BUDGETS

# INT8 moves single logits far; those of a broken graph are no nearer than another model's, whose
# error is as large as the logits themselves.
MOST_RELATIVE = 0.5


@dataclass
class Difference:
    """largest: absolute difference of a logit. equal_labels, equal_tags: how many argmaxes agree
    out of `rows` sentences and `pieces` pieces. squared_error, squared: sums over all logits.
    """

    largest: float = 0.0
    rows: int = 0
    pieces: int = 0
    equal_labels: int = 0
    equal_tags: int = 0
    squared_error: float = 0.0
    squared: float = 0.0

    def add(self, found: Sequence[RowLogits], expected: Sequence[RowLogits]) -> str:
        """Compare more rows; returns why they cannot be compared, empty where they can."""
        shapes, wanted = [[_shapes(one) for one in rows] for rows in (found, expected)]
        if shapes != wanted:
            return f"its logits have the shapes {shapes[:3]}, the reference's {wanted[:3]}"
        for mine, theirs in zip(found, expected, strict=True):
            self._add_values(mine, theirs)
            self.rows += 1
            self.pieces += len(mine[1])
            self.equal_labels += int(mine[0].argmax() == theirs[0].argmax())
            self.equal_tags += int((mine[1].argmax(-1) == theirs[1].argmax(-1)).sum())
        return ""

    @property
    def relative(self) -> float:
        """Root mean square of the differences over that of the reference's logits."""
        return float(np.sqrt(self.squared_error / self.squared)) if self.squared else 0.0

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

        Bounds are the export's (`variants.BUDGETS`); INT8, which has none there, is judged by its
        relative error.
        """
        bound = BUDGETS[precision].logits
        if bound is not None and self.largest > bound:
            return f"a logit differs by {self.largest:.1e}, in {precision} at most {bound:g} may"
        if not np.isfinite(self.largest) or self.relative > MOST_RELATIVE:
            return (
                f"its logits differ by {self.relative:.2g} of the reference's own size, at most "
                f"{MOST_RELATIVE:g} may"
            )
        return ""

    def _add_values(self, mine: RowLogits, theirs: RowLogits) -> None:
        for left, right in zip(mine, theirs, strict=True):
            # A NaN must not pass for small.
            gaps = np.nan_to_num(np.abs(left - right), nan=np.inf)
            self.largest = max(self.largest, float(gaps.max()))
            self.squared_error += float(np.square(gaps, dtype=np.float64).sum())
            self.squared += float(np.square(right, dtype=np.float64).sum())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a difference that is not finite is named, not written as a number."""
        return {
            "largest": _number(self.largest),
            "relative": _number(self.relative),
            "rows": self.rows,
            "pieces": self.pieces,
            "label_share": round(self.label_share, 5),
            "tag_share": round(self.tag_share, 5),
        }


def _number(value: float) -> float | str:
    return float(f"{value:.3g}") if np.isfinite(value) else "not finite"


def _shapes(logits: RowLogits) -> tuple[tuple[int, ...], ...]:
    return tuple(one.shape for one in logits)
