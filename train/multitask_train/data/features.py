"""Examples → windows with the labels of both heads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from multitask_core.errors import DataError
from multitask_core.labels import LabelSchema, bio_spans
from multitask_core.text import EncodedText, TextEncoder
from multitask_train.data.examples import Example, Span

log = logging.getLogger(__name__)

Float16 = npt.NDArray[np.float16]

IGNORED = -100
TASKS = ("classification", "ner")
# Characters of the text shown on either side of an entity in a warning.
_CONTEXT = 20


@dataclass(frozen=True)
class Answer:
    """What a teacher says of one text, as log probabilities; None where it was not asked.

    classes: [C]. words: code-point span of each word that it has, [W]; tags: [W, T].
    """

    classes: Float16 | None = None
    words: Sequence[tuple[int, int]] = ()
    tags: Float16 | None = None


@dataclass(frozen=True)
class Feature:
    """One window: input_ids [L], class_label, token_labels [L]; -100 where nothing is to learn.

    class_answer: a teacher's log probabilities, [C]; tag_answers: likewise of words, [N, T], and
    answered where these begin in input_ids, [N].
    """

    input_ids: list[int]
    class_label: int
    token_labels: list[int]
    class_answer: Float16 | None = field(default=None, compare=False)
    tag_answers: Float16 | None = field(default=None, compare=False)
    answered: tuple[int, ...] = ()

    @cached_property
    def tagged(self) -> int:
        """Pieces that carry a tag to learn."""
        return sum(label != IGNORED for label in self.token_labels)

    def labelled(self, task: str) -> bool:
        """Whether it has a label of the task."""
        return self.class_label != IGNORED if task == "classification" else self.tagged > 0

    def answers(self, task: str) -> list[tuple[int, Float16]]:
        """A teacher's log probabilities [C or T], each with its place in the row of logits."""
        if task == "ner":
            rows = () if self.tag_answers is None else self.tag_answers
            return list(zip(self.answered, rows, strict=True))
        return [] if self.class_answer is None else [(0, self.class_answer)]

    def taught(self, task: str) -> bool:
        """Whether it has an answer of the task's teacher."""
        return bool(self.answered) if task == "ner" else self.class_answer is not None

    def teaches(self, task: str) -> bool:
        """Whether the task learns from it: from a label or from a teacher's answer."""
        return self.labelled(task) or self.taught(task)

    @property
    def kind(self) -> str:
        """What it has: joint, classification or ner labels, or without any, a teacher's answers."""
        found = [task for task in TASKS if self.labelled(task)]
        found = found or [task for task in TASKS if self.taught(task)]
        return found[0] if len(found) == 1 else "joint"


def collect_schema(examples: Iterable[Example]) -> LabelSchema:
    """All labels and entity types of a corpus; raises DataError when a head would have none."""
    names = label_names(examples)
    for what, found in zip(("label", "entity"), names, strict=True):
        if not found:
            raise DataError(
                f"no training sentence carries any {what}, and the model has a head for labels and "
                "one for entities, whichever data.tasks trains: name a corpus that has them beside "
                "this one (data.train takes a list)"
            )
    return LabelSchema.collect(*names)


def unknown_labels(examples: Iterable[Example], schema: LabelSchema) -> list[str]:
    """Labels and types of a corpus that the schema lacks: no model with it can ever answer them."""
    classes, types = label_names(examples)
    return sorted(classes - set(schema.classes)) + sorted(types - set(schema.entity_types))


def encode_examples(
    examples: Sequence[Example],
    encoder: TextEncoder,
    schema: LabelSchema,
    answers: Sequence[Answer] | None = None,
) -> list[Feature]:
    """Tokenise, window and label; every window of a text carries the text's class.

    answers: a teacher's, one for each example. Tags stand for whole words, so entities that begin
    or end inside a word or hold no word are learned otherwise than annotated or not at all: one
    warning counts them and shows the first.
    """
    features: list[Feature] = []
    encoded = encoder([example.text for example in examples])
    answers = answers or [Answer()] * len(examples)
    for example, text, answer in zip(examples, encoded, answers, strict=True):
        features.extend(_windows(example, text, encoder, schema, answer))
    _warn_of_changes(examples, encoded)
    _warn_of_words(encoded, answers)
    return features


def only(features: Sequence[Feature], tasks: str) -> list[Feature]:
    """What teaches the heads that `tasks` names, one or `both`, without labels of another one.

    Raises DataError where nothing does.
    """
    if tasks == "classification":
        kept = [
            replace(one, token_labels=[IGNORED] * len(one.input_ids))
            for one in features
            if one.teaches(tasks)
        ]
    elif tasks == "ner":
        kept = [replace(one, class_label=IGNORED) for one in features if one.teaches(tasks)]
    else:
        return [one for one in features if any(map(one.teaches, TASKS))]
    if not kept:
        raise DataError(f"data.tasks is {tasks}, and no training sentence has its labels")
    return kept


def word_tags(words: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[str]:
    """Spans → one BIO tag a word [W]; a word belongs to the first span that touches it."""
    tags = ["O"] * len(words)
    word = 0
    for span in spans:
        prefix = "B"
        while word < len(words) and words[word][1] <= span.start:
            word += 1
        while word < len(words) and words[word][0] < span.end:
            tags[word] = f"{prefix}-{span.type}"
            prefix = "I"
            word += 1
    return tags


def label_names(examples: Iterable[Example]) -> tuple[set[str], set[str]]:
    """Labels and entity types of a corpus."""
    classes: set[str] = set()
    types: set[str] = set()
    for example in examples:
        if example.label is not None:
            classes.add(example.label)
        types.update(span.type for span in example.entities or ())
    return classes, types


def _warn_of_changes(examples: Sequence[Example], encoded: Sequence[EncodedText]) -> None:
    changes = [
        (text.text, span, learned)
        for example, text in zip(examples, encoded, strict=True)
        for span, learned in unlearnable(example.entities or (), text.words)
    ]
    if changes:
        log.warning(
            "%d of %d entities begin or end inside a word or hold none, so they cannot be learned "
            "as annotated; the first: %s",
            len(changes),
            sum(len(example.entities or ()) for example in examples),
            describe_change(*changes[0]),
        )


def _warn_of_words(encoded: Sequence[EncodedText], answers: Sequence[Answer]) -> None:
    asked = [
        (text.words, answer.words)
        for text, answer in zip(encoded, answers, strict=True)
        if answer.tags is not None
    ]
    words = sum(len(ours) for ours, _ in asked)
    known = sum(len(set(ours) & set(theirs)) for ours, theirs in asked)
    if known < words:
        log.warning(
            "the teacher's tokenizer parts %d of %d words otherwise: it is not imitated there",
            *(words - known, words),
        )


def unlearnable(
    spans: Sequence[Span], words: Sequence[tuple[int, int]]
) -> list[tuple[Span, list[Span]]]:
    """The spans that tags of these words cannot say, each with what is learned in its place."""
    tagged = bio_spans(word_tags(words, spans))
    learned = [Span(words[a][0], words[b - 1][1], name) for a, b, name in tagged]
    exact = set(learned)
    return [
        (span, [one for one in learned if one.start < span.end and span.start < one.end])
        for span in spans
        if span not in exact
    ]


def describe_change(text: str, span: Span, learned: Sequence[Span]) -> str:
    """A change for people: the entity, its surroundings, what is learned instead."""
    around = text[max(0, span.start - _CONTEXT) : span.end + _CONTEXT]
    instead = ", ".join(_named(text, one) for one in learned) or "nothing"
    return f"{_named(text, span)} in {around!r}; learned instead: {instead}"


def _named(text: str, span: Span) -> str:
    return f"{span.type} {span.start}:{span.end} {text[span.start : span.end]!r}"


def _windows(
    example: Example,
    text: EncodedText,
    encoder: TextEncoder,
    schema: LabelSchema,
    answer: Answer,
) -> Iterable[Feature]:
    label = IGNORED if example.label is None else schema.class_ids[example.label]
    piece_labels = [IGNORED] * len(text.ids)
    if example.entities is not None:
        tags = word_tags(text.words, example.entities)
        for piece, tag in zip(text.word_pieces, tags, strict=True):
            piece_labels[piece] = schema.tag_ids[tag]
    before, after = [IGNORED] * len(encoder.prefix), [IGNORED] * len(encoder.suffix)
    rows = {} if answer.tags is None else {span: row for row, span in enumerate(answer.words)}
    known = [
        (piece, rows[span])
        for piece, span in zip(text.word_pieces, text.words, strict=True)
        if span in rows
    ]
    for window in text.windows:
        inner = piece_labels[window.start : window.stop]
        here = [(piece, row) for piece, row in known if window.start <= piece < window.stop]
        yield Feature(
            encoder.input_ids(text, window),
            label,
            [*before, *inner, *after],
            answer.classes,
            None if answer.tags is None else answer.tags[[row for _, row in here]],
            tuple(len(before) + piece - window.start for piece, _ in here),
        )
