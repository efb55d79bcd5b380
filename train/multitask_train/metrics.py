"""Predictions against gold: accuracy for sentences, seqeval F1 and token accuracy for entities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from seqeval.metrics import f1_score, precision_score, recall_score

from multitask_core.prediction import Prediction
from multitask_train.data.examples import Example, Span
from multitask_train.data.features import word_tags

_WORD = re.compile(r"\w+|[^\w\s]")


def score(examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Metrics of a corpus; a task that the corpus does not annotate is None.

    classification.accuracy: share of right labels. ner: micro precision, recall and F1 of strict
    entities (seqeval) and the share of words with the right BIO tag. joint.exact_match: share of
    sentences with the right label and exactly the right entities. All between 0 and 1.
    """
    pairs = list(zip(examples, predictions, strict=True))
    return {
        "classification": _classification(pairs),
        "ner": _ner(pairs),
        "joint": _joint(pairs),
        "examples": len(pairs),
    }


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


def _cut_words(words: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[tuple[int, int]]:
    boundaries = {boundary for span in spans for boundary in (span.start, span.end)}
    cut: list[tuple[int, int]] = []
    for start, end in words:
        inner = sorted(boundary for boundary in boundaries if start < boundary < end)
        cut.extend(pairwise([start, *inner, end]))
    return cut


def _classification(pairs: Sequence[tuple[Example, Prediction]]) -> dict[str, float] | None:
    right = [answer.label == example.label for example, answer in pairs if example.label]
    return {"accuracy": sum(right) / len(right)} if right else None


def _ner(pairs: Sequence[tuple[Example, Prediction]]) -> dict[str, float] | None:
    rows = [tag_rows(example, answer) for example, answer in pairs if example.entities is not None]
    if not rows:
        return None
    gold, found = [row[0] for row in rows], [row[1] for row in rows]
    words = [left == right for row in rows for left, right in zip(*row, strict=True)]
    return {
        "f1": float(f1_score(gold, found, zero_division=0)),
        "precision": float(precision_score(gold, found, zero_division=0)),
        "recall": float(recall_score(gold, found, zero_division=0)),
        "token_accuracy": sum(words) / len(words) if words else 1.0,
    }


def _joint(pairs: Sequence[tuple[Example, Prediction]]) -> dict[str, float] | None:
    both = [(one, answer) for one, answer in pairs if one.label and one.entities is not None]
    if not both:
        return None
    right = [
        answer.label == example.label and len(set(map(tuple, tag_rows(example, answer)))) == 1
        for example, answer in both
    ]
    return {"exact_match": sum(right) / len(right)}


def summary(metrics: dict[str, Any]) -> float:
    """One number to choose a checkpoint by: the mean of accuracy and F1, of those that exist."""
    values = [
        metrics[task][name]
        for task, name in (("classification", "accuracy"), ("ner", "f1"))
        if metrics[task] is not None
    ]
    return float(sum(values) / len(values))
