"""The numeric and the task gate: does a graph answer like its checkpoint?

Values first, on real sentences of all lengths, on batches of every shape and on masks with padding
in other places; then answers. Each check raises its own ParityError with what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from multitask_core.batching import Float32, Int64, RowLogits, Rows, pad_rows
from multitask_core.decode import decode
from multitask_core.errors import ParityError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Logits, Pipeline
from multitask_core.prediction import Prediction
from multitask_core.signature import PADDED
from multitask_core.text import TextEncoder
from multitask_export.task import Change, accuracy_change, f1_change, spans
from multitask_export.variants import Budget
from multitask_train.data import Example

# Texts that corpora seldom hold; the gate adds them to the real sentences.
HARD_TEXTS = (
    "a",
    "?!",
    "ＦＵＬＬ　ＷＩＤＴＨ and naïve café – “quoted” 😀",
    "supercalifragilisticexpialidocious" * 4,
    "please tell the long story of the town again and again, " * 60,
)
SINGLES = 16
BINS = 10.0 ** np.arange(-8, 2.01, 0.25)


class GatedEncoder(Protocol):
    """What the gate runs: rows in, and padded tensors as they are."""

    layout: str

    def __call__(self, rows: Rows) -> Sequence[RowLogits]:
        """Run one batch of rows."""

    def run(self, *inputs: Int64) -> tuple[Float32, Float32]:
        """Run input_ids and attention_mask [B, L]."""


@dataclass(frozen=True)
class Parity:
    """Largest logit differences, and how many of the sentences changed their answer.

    labels_changed_clearly: labels whose margin was larger than class_difference. histogram: how
    many differences of each head fall between the edges `BINS`. accuracy, f1: None where the
    sentences carry no such annotation.
    """

    class_difference: float
    token_difference: float
    labels_changed: int
    labels_changed_clearly: int
    entities_changed: int
    spans: int
    spans_changed: int
    sentences: int
    accuracy: Change | None
    f1: Change | None
    histogram: dict[str, list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        changes = {name: getattr(self, name) for name in ("accuracy", "f1")}
        return {
            **{name: value for name, value in vars(self).items() if name != "histogram"},
            **{name: one.to_dict() if one else None for name, one in changes.items()},
        }


class Reference:
    """A checkpoint's answers, worked out once and compared with every variant."""

    def __init__(
        self,
        text_encoder: TextEncoder,
        encoder: GatedEncoder,
        schema: LabelSchema,
        examples: Sequence[Example],
    ) -> None:
        self._text_encoder, self._schema, self._examples = text_encoder, schema, examples
        encoded = text_encoder([*HARD_TEXTS, *(example.text for example in examples)])
        self.rows = [
            text_encoder.input_ids(one, window) for one in encoded for window in one.windows
        ]
        words = encoded[len(HARD_TEXTS) :]
        self.sentence_rows = [
            text_encoder.input_ids(one, window) for one in words for window in one.windows
        ]
        self._runs = [encoded, *([one] for one in encoded[:: max(1, len(encoded) // SINGLES)])]
        self._batches = _batches(self.rows, text_encoder.windowing.max_length)
        self._shifted = _shifted(self.rows)
        pipeline = self._pipeline(encoder)
        self._logits = [pipeline.logits(run) for run in self._runs]
        self._batch_logits = [encoder(batch) for batch in self._batches]
        self._shifted_logits = encoder.run(*self._shifted)
        self._answers = self._decode(self._logits[0])

    def measure(self, candidate: GatedEncoder) -> Parity:
        """Compare an encoder; raises ParityError when logits differ in shape, are not finite or
        depend on where padding stands.
        """
        pipeline = self._pipeline(candidate)
        logits = [pipeline.logits(run) for run in self._runs]
        answers = self._decode(logits[0])
        classes, tokens = self._differences(logits, [candidate(batch) for batch in self._batches])
        largest = float(classes.max(initial=0.0))
        shifted = self._check_shifted(candidate, 10 * max(largest, float(tokens.max(initial=0.0))))
        changed = [
            (old, index)
            for index, (old, new) in enumerate(zip(self._answers, answers, strict=True))
            if old.label != new.label
        ]
        pairs = [(spans(old), spans(new)) for old, new in zip(self._answers, answers, strict=True)]
        return Parity(
            max(largest, shifted),
            float(tokens.max(initial=0.0)),
            len(changed),
            sum(self._margin(index) > largest for _, index in changed),
            sum(old != new for old, new in pairs),
            sum(len(old) for old, _ in pairs),
            sum(len(set(old) ^ set(new)) for old, new in pairs),
            len(self._examples),
            accuracy_change(self._examples, self._answers, answers),
            f1_change(self._examples, self._answers, answers),
            {
                "class_logits": np.histogram(classes, [0, *BINS])[0].tolist(),
                "token_logits": np.histogram(tokens, [0, *BINS])[0].tolist(),
            },
        )

    def _pipeline(self, encoder: GatedEncoder) -> Pipeline:
        return Pipeline(self._text_encoder, encoder, self._schema)

    def _differences(
        self, logits: Sequence[Sequence[Logits]], batches: Sequence[Sequence[RowLogits]]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Absolute differences of all class logits and of all token logits, flat."""
        classes: list[Float32] = []
        tokens: list[Float32] = []
        for mine, theirs in _pairs(self._logits, logits):
            classes.append(_difference("class_logits", mine[0], theirs[0]))
            for left, right in zip(mine[1], theirs[1], strict=True):
                tokens.append(_difference("token_logits", left, right))
        for mine, theirs in _pairs(self._batch_logits, batches):
            classes.append(_difference("class_logits", mine[0], theirs[0]))
            tokens.append(_difference("token_logits", mine[1], theirs[1]))
        return np.concatenate(classes), np.concatenate(tokens)

    def _check_shifted(self, candidate: GatedEncoder, allowed: float) -> float:
        """Largest class difference when padding stands on the left; packed graphs have none."""
        if candidate.layout != PADDED:
            return 0.0
        answer = candidate.run(*self._shifted)[0]
        found = float(_difference("class_logits", self._shifted_logits[0], answer).max())
        if found > max(allowed, 1e-3):
            raise ParityError(
                f"with padding on the left class_logits differ by {found:.2e}, without by at most "
                f"{allowed / 10:.2e}: the graph assumes that padding stands on the right"
            )
        return found

    def _margin(self, index: int) -> float:
        """How far a sentence's label stands above the next."""
        logits = np.sort(self._logits[0][len(HARD_TEXTS) + index][0].mean(axis=0))
        return float(logits[-1] - logits[-2])

    def _decode(self, logits: Sequence[Logits]) -> list[Prediction]:
        """Answers of the real sentences, which stand behind the hard texts."""
        pairs = list(zip(self._runs[0], logits, strict=True))[len(HARD_TEXTS) :]
        return [decode(text, *one, self._schema) for text, one in pairs]


def check_budget(name: str, parity: Parity, budget: Budget) -> None:
    """Values first, then answers; raises ParityError with the figure and what was allowed."""
    largest = max(parity.class_difference, parity.token_difference)
    if budget.logits is not None and largest > budget.logits:
        raise ParityError(
            f"{name}: logits differ by up to {largest:.2e} from the checkpoint, "
            f"allowed are {budget.logits:.0e}"
        )
    if parity.labels_changed_clearly and not budget.clear_labels:
        raise ParityError(
            f"{name}: {parity.labels_changed_clearly} sentences change their label although its "
            f"margin was larger than the numeric difference of {parity.class_difference:.1e}"
        )
    for what, changed, share in (
        ("label", parity.labels_changed, budget.labels),
        ("entities", parity.entities_changed, budget.entities),
    ):
        if changed > share * parity.sentences:
            raise ParityError(
                f"{name}: {changed} of {parity.sentences} sentences change their {what}, "
                f"allowed are {share:.1%}"
            )
    for what, change, most in (
        ("accuracy", parity.accuracy, budget.accuracy),
        ("entity F1", parity.f1, budget.f1),
    ):
        if change and change.loss > most:
            raise ParityError(
                f"{name}: {what} falls from {change.before:.2f} to {change.after:.2f} (95 % "
                f"interval of the change {change.low:+.2f} to {change.high:+.2f}), "
                f"allowed is {most} points"
            )


def judged(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures that decide: for FP16 those of the rounded graph, since a CPU hides roundings."""
    rounded: Mapping[str, Any] = figures.get("rounded", figures)
    return rounded


def measured(report: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Title → figures of every variant and of every further engine that ran one."""
    found: dict[str, dict[str, Any]] = {}
    for name, figures in report.items():
        found[name] = dict(figures)
        graph = {key: figures[key] for key in ("bytes", "operators") if key in figures}
        for engine, one in figures.get("engines", {}).items():
            found[f"{name} on {engine}"] = {**graph, **one}
    return found


def _batches(rows: Rows, longest: int) -> list[Rows]:
    """Mixes of lengths that no length-sorted batch has: one piece beside the longest row, all kinds
    of sizes, one row by itself.
    """
    joined = [piece for row in rows for piece in row]
    full = (joined * (1 + longest // len(joined)))[:longest]
    shuffled = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]
    sizes = (1, 2, 3, 8, 17)
    starts = np.cumsum((0, *sizes)).tolist()
    mixes = [shuffled[first : first + size] for first, size in zip(starts, sizes, strict=False)]
    return [[full], [full[:1]], [full[:1], full, full[:2]], *(mix for mix in mixes if mix)]


def _shifted(rows: Rows) -> tuple[Int64, Int64]:
    """A padded batch with its padding on the left, [4, L]."""
    ids, mask = pad_rows(sorted(rows, key=len)[:: max(1, len(rows) // 4)][:4])
    for index, length in enumerate(mask.sum(axis=1)):
        ids[index], mask[index] = np.roll(ids[index], -length), np.roll(mask[index], -length)
    return ids, mask


def _pairs(mine: Sequence[Sequence[Any]], theirs: Sequence[Sequence[Any]]) -> list[Any]:
    return [
        pair
        for left, right in zip(mine, theirs, strict=True)
        for pair in zip(left, right, strict=True)
    ]


def _difference(name: str, left: Float32, right: Float32) -> Float32:
    if left.shape != right.shape:
        raise ParityError(f"{name}: shape {right.shape}, the checkpoint gives {left.shape}")
    if not np.isfinite(right).all():
        raise ParityError(f"{name}: {int((~np.isfinite(right)).sum())} values are not finite")
    difference: Float32 = np.abs(left - right).ravel()
    return difference
