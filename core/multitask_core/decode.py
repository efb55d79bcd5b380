"""Logits → Prediction, in numpy alone: window merging, label pooling, BIO-valid entity spans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from multitask_core.batching import Float32, Int64
from multitask_core.labels import LabelSchema
from multitask_core.prediction import Entity, Prediction
from multitask_core.text import EncodedText, Window


def decode(
    encoded: EncodedText,
    class_logits: Float32,
    token_logits: Sequence[Float32],
    schema: LabelSchema,
) -> Prediction:
    """Turn one text's logits into its answer.

    class_logits: [windows, C]; token_logits: one [pieces of the window, T] for each window, special
    tokens left out. The label is the softmax of the windows' mean logits. A word's tag is read at
    its first piece, in the window that shows most context round it; an entity's score is the mean
    probability of its words' tags.
    """
    pooled = class_logits.mean(axis=0) if len(class_logits) > 1 else class_logits[0]
    probabilities = softmax(pooled)
    label = schema.classes[int(probabilities.argmax())]
    scores = dict(zip(schema.classes, probabilities.tolist(), strict=True))
    logits = word_logits(encoded, token_logits)
    return Prediction(label, scores, _entities(encoded, logits, schema))


def word_logits(encoded: EncodedText, token_logits: Sequence[Float32]) -> Float32:
    """Merge windows into one row of tag logits a word, [W, T]."""
    pieces = np.asarray(encoded.word_pieces, np.int64)
    if len(encoded.windows) == 1:
        return token_logits[0][pieces]
    owners = _owning_windows(pieces, encoded.windows)
    bounds = np.searchsorted(owners, np.arange(len(encoded.windows) + 1)).tolist()
    return np.concatenate(
        [
            logits[pieces[first:last] - window.start]
            for logits, window, first, last in zip(
                token_logits, encoded.windows, bounds, bounds[1:], strict=False
            )
        ]
    )


def best_tags(logits: Float32) -> Int64:
    """The likeliest valid BIO tags of a sentence: I- only follows B- or I- of its type, [W].

    logits: [W, T]. Each word's own best tag where these are valid, as they mostly are; else the
    best path through all tags (Viterbi 1967), so that a name does not fall apart over which of two
    types it is.
    """
    own: Int64 = logits.argmax(axis=-1)
    inside = (own > 0) & (own % 2 == 0)
    before = np.concatenate(([0], own[:-1]))
    if np.all((before == own) | (before == own - 1), where=inside):
        return own
    return _best_path(logits)


def _best_path(logits: Float32) -> Int64:
    """Viterbi's path, [W], O(W T): all tags but I- may follow any tag."""
    score = logits[0].astype(np.float64)
    score[2::2] = -np.inf
    steps: list[tuple[int, npt.NDArray[np.bool_]]] = []
    for row in logits[1:]:
        begin, inside = score[1::2], score[2::2]
        best = int(score.argmax())
        steps.append((best, begin >= inside))
        reached = row + score[best]
        reached[2::2] = row[2::2] + np.maximum(begin, inside)
        score = reached
    path = [int(score.argmax())]
    for best, begins in reversed(steps):
        tag = path[-1]
        if tag == 0 or tag % 2:
            path.append(best)
        else:
            path.append(tag - 1 if begins[tag // 2 - 1] else tag)
    return np.asarray(path[::-1], np.int64)


def softmax(logits: Float32) -> Float32:
    """Softmax over the last axis, shifted by the maximum so that it cannot overflow."""
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Float32 = exponent / exponent.sum(axis=-1, keepdims=True)
    return result


def _owning_windows(pieces: Int64, windows: list[Window]) -> Int64:
    """For each piece the window in which it stands farthest from an edge, [N] in O(N log windows).

    Two neighbours part in the middle of their overlap; the text's own ends are no edges.
    """
    cuts = [(left.stop + right.start + 1) // 2 for left, right in pairwise(windows)]
    return np.searchsorted(np.asarray(cuts, np.int64), pieces, side="right").astype(np.int64)


def _entities(encoded: EncodedText, logits: Float32, schema: LabelSchema) -> tuple[Entity, ...]:
    """Group the words of the best valid tags into spans."""
    tag_ids = best_tags(logits)
    tagged = np.flatnonzero(tag_ids)
    if not len(tagged):
        return ()
    chosen = softmax(logits[tagged])[np.arange(len(tagged)), tag_ids[tagged]]
    groups: list[tuple[int, list[int], list[float]]] = []
    for word, tag, score in zip(
        tagged.tolist(), tag_ids[tagged].tolist(), chosen.tolist(), strict=True
    ):
        kind, inside = (tag - 1) // 2, tag % 2 == 0
        if groups and inside and groups[-1][0] == kind and groups[-1][1][-1] == word - 1:
            groups[-1][1].append(word)
            groups[-1][2].append(score)
        else:
            groups.append((kind, [word], [score]))
    return tuple(_entity(encoded, schema, *group) for group in groups)


def _entity(
    encoded: EncodedText, schema: LabelSchema, kind: int, words: list[int], scores: list[float]
) -> Entity:
    start, end = encoded.words[words[0]][0], encoded.words[words[-1]][1]
    text = encoded.text[start:end]
    return Entity(schema.entity_types[kind], text, start, end, sum(scores) / len(scores))
