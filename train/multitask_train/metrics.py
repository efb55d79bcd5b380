"""Predictions against gold: how right the labels, the entities and their scores are.

Strict entities are counted by seqeval on BIO tags of words, labels by scikit-learn, calibration by
the expected calibration error of Guo et al. 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
from sklearn.metrics import f1_score

from multitask_core.errors import ConfigError
from multitask_core.labels import OUTSIDE, split_tag
from multitask_core.prediction import Prediction
from multitask_train.data.examples import Example, Span
from multitask_train.data.features import word_tags

BINS = 15
# What run.best_metric can name, besides `mean`: task and key.
_NAMED = {
    "accuracy": ("classification", "accuracy"),
    "macro_f1": ("classification", "macro_f1"),
    "f1": ("ner", "f1"),
    "exact_match": ("joint", "exact_match"),
}
_MEAN = ("accuracy", "f1")
_TASKS = ("classification", "ner", "joint")
_WORD = re.compile(r"\w+|[^\w\s]")

Scored = list[tuple[float, bool]]
_Pairs = Sequence[tuple[Example, Prediction]]


def score(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Metrics of a corpus; a task that the corpus does not annotate is None.

    classification: accuracy, and macro F1 over the classes that gold or answers hold. ner: micro
    precision, recall and F1 of strict entities, the share of words with the right BIO tag, and
    precision, recall, F1 and gold count of each type that gold or answers hold. joint.exact_match:
    share of sentences with the right label and exactly the right entities. calibration_error: of
    the labels' and of the found entities' scores, None where nothing was found. All but the counts
    between 0 and 1.
    """
    pairs = list(zip(examples, predictions, strict=True))
    return {
        "classification": _classification(pairs),
        "ner": _ner(pairs),
        "joint": _joint(pairs),
        "examples": len(pairs),
    }


def only(metrics: Mapping[str, Any], tasks: str) -> dict[str, Any]:
    """Metrics of a run with `data.tasks`: those of a head that it did not train become None."""
    if tasks == "both":
        return dict(metrics)
    dropped = {task: None for task in _TASKS if task != tasks}
    return {**metrics, **dropped}


def summary(metrics: Mapping[str, Any], name: str = "mean") -> float:
    """One number to choose a checkpoint by: a named metric, or the mean of accuracy and F1.

    The mean is over those of the two that exist. Raises ConfigError where the metric does not.
    """
    there = check_best_metric(name, [task for task in _TASKS if metrics[task] is not None])
    values = [metrics[task][key] for task, key in (_NAMED[one] for one in there)]
    return float(sum(values) / len(values))


def measured_tasks(examples: Sequence[Example], tasks: str = "both") -> list[str]:
    """Those of classification, ner and joint that `score` finds annotated and `only` leaves."""
    found = {
        "classification": any(one.label for one in examples),
        "ner": any(one.entities is not None for one in examples),
        "joint": any(one.label and one.entities is not None for one in examples),
    }
    return [task for task, there in found.items() if there and tasks in ("both", task)]


def check_best_metric(name: str, measured: Collection[str]) -> list[str]:
    """The metrics behind run.best_metric; raises ConfigError where no measured task gives one."""
    there = [one for one, (task, _) in _NAMED.items() if task in measured]
    found = [one for one in (_MEAN if name == "mean" else (name,)) if one in there]
    if not found:
        raise ConfigError(
            f"run.best_metric is {name}, which data.dev does not give: accuracy and macro_f1 need "
            "labels, f1 needs entities, exact_match both on the same sentences, each for a head "
            f"that data.tasks trains. Here there is {', '.join(there) or 'none of them'}: choose "
            "among these or name other --data.dev"
        )
    return found


def tag_rows(example: Example, prediction: Prediction) -> tuple[list[str], list[str]]:
    """Gold and predicted BIO tags over the same words [W].

    Words are the corpus's own tokens, or runs of letters and single signs where it has none; both
    are cut at gold and predicted boundaries, so that equal tags mean equal characters.
    """
    gold = list(example.entities or ())
    found = [Span(entity.start, entity.end, entity.type) for entity in prediction.entities]
    words = example.words or [match.span() for match in _WORD.finditer(example.text)]
    cut = _cut_words(words, [*gold, *found])
    return word_tags(cut, gold), word_tags(cut, found)


@dataclass(frozen=True)
class Reliability:
    """Scores in BINS bins of equal width, (0, 1/15] first: see Guo et al. 2017, section 2.

    counts: scores in each bin; scores: their mean; shares: how many of them were right, as a
    share; [BINS] each, 0 where a bin is empty.
    """

    counts: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]

    @classmethod
    def of(cls, scored: Scored) -> Reliability:
        """Sort scores, each with whether its answer was right, into bins."""
        scores = np.array([one for one, _ in scored], np.float64)
        right = np.array([one for _, one in scored], np.float64)
        # Rounding may carry a mean of probabilities a little beyond 1.
        bins = np.clip(np.ceil(scores * BINS) - 1, 0, BINS - 1).astype(np.int64)
        counts = np.bincount(bins, minlength=BINS).astype(np.float64)
        sums = (np.bincount(bins, weights=one, minlength=BINS) for one in (scores, right))
        means = [one / np.maximum(counts, 1) for one in sums]
        return cls(counts, *means)

    @property
    def error(self) -> float | None:
        """Expected calibration error: mean distance of score and share right; None without any."""
        total = float(self.counts.sum())
        distance = float((self.counts * np.abs(self.shares - self.scores)).sum())
        return distance / total if total else None


def scored_labels(pairs: _Pairs) -> Scored:
    """The score of each predicted label and whether it is right, where there is a gold one."""
    return [
        (answer.score, answer.label == example.label)
        for example, answer in pairs
        if example.label and answer.scores
    ]


def scored_entities(pairs: _Pairs) -> Scored:
    """The score of each predicted entity and whether gold has one of its span and type."""
    return [
        (entity.score, (entity.start, entity.end, entity.type) in example.entities)
        for example, answer in pairs
        if example.entities is not None
        for entity in answer.entities
    ]


def _cut_words(words: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[tuple[int, int]]:
    boundaries = sorted({boundary for span in spans for boundary in (span.start, span.end)})
    cut: list[tuple[int, int]] = []
    for start, end in words:
        inner = boundaries[bisect_right(boundaries, start) : bisect_left(boundaries, end)]
        cut.extend(pairwise([start, *inner, end]))
    return cut


def _classification(pairs: _Pairs) -> dict[str, float | None] | None:
    labels = [(example.label, answer.label) for example, answer in pairs if example.label]
    if not labels:
        return None
    gold, found = zip(*labels, strict=True)
    return {
        "accuracy": sum(left == right for left, right in labels) / len(labels),
        "macro_f1": float(f1_score(gold, found, average="macro", zero_division=0)),
        "calibration_error": Reliability.of(scored_labels(pairs)).error,
    }


def _ner(pairs: _Pairs) -> dict[str, Any] | None:
    rows = [tag_rows(example, answer) for example, answer in pairs if example.entities is not None]
    if not rows:
        return None
    gold, found = [row[0] for row in rows], [row[1] for row in rows]
    words = [left == right for row in rows for left, right in zip(*row, strict=True)]
    precision, recall, f1, _ = precision_recall_fscore_support(
        gold, found, average="micro", zero_division=0
    )
    return {
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "token_accuracy": sum(words) / len(words) if words else 1.0,
        "calibration_error": Reliability.of(scored_entities(pairs)).error,
        "types": _types(gold, found),
    }


def _types(gold: list[list[str]], found: list[list[str]]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and gold count of every type; seqeval's rows are sorted by type."""
    tags = {tag for row in (*gold, *found) for tag in row}
    names = sorted({split_tag(tag)[1] for tag in tags - {OUTSIDE}})
    if not names:
        return {}
    columns = precision_recall_fscore_support(gold, found, average=None, zero_division=0)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    keys = ("precision", "recall", "f1", "support")
    return {name: dict(zip(keys, row, strict=True)) for name, row in zip(names, rows, strict=True)}


def _joint(pairs: _Pairs) -> dict[str, float] | None:
    both = [(one, answer) for one, answer in pairs if one.label and one.entities is not None]
    if not both:
        return None
    right = [
        answer.label == example.label and len(set(map(tuple, tag_rows(example, answer)))) == 1
        for example, answer in both
    ]
    return {"exact_match": sum(right) / len(right)}
