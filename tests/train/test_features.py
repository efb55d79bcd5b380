"""Examples → labelled windows → batches."""

import logging

import numpy as np
import pytest

from multitask_core.errors import DataError
from multitask_core.labels import LabelSchema
from multitask_core.text import TextEncoder, Windowing
from multitask_train.data import Example, Span
from multitask_train.data.examples import from_tokens
from multitask_train.data.features import (
    IGNORED,
    Answer,
    collect_schema,
    encode_examples,
    unknown_labels,
    word_tags,
)
from tiny import wordpiece

ENCODER = TextEncoder(wordpiece(), Windowing(16, 4))
SCHEMA = LabelSchema(("music", "other"), ("city", "genre"))


def test_the_first_piece_of_each_word_carries_its_tag() -> None:
    example = Example("play acid jazz", "music", (Span(5, 14, "genre"),))
    (feature,) = encode_examples([example], ENCODER, SCHEMA)
    text = ENCODER([example.text])[0]
    labels = [tag for tag in feature.token_labels if tag != IGNORED]
    assert labels == [0, SCHEMA.tag_ids["B-genre"], SCHEMA.tag_ids["I-genre"]]
    assert [index - 1 for index, tag in enumerate(feature.token_labels) if tag != IGNORED] == (
        text.word_pieces
    )
    assert feature.class_label == 0
    assert feature.kind == "joint"


def test_missing_annotation_trains_nothing() -> None:
    classified, tagged = encode_examples(
        [Example("hi there", "other"), Example("in bath", None, (Span(3, 7, "city"),))],
        ENCODER,
        SCHEMA,
    )
    assert (classified.kind, set(classified.token_labels)) == ("classification", {IGNORED})
    assert (tagged.kind, tagged.class_label) == ("ner", IGNORED)


def test_a_teachers_answers_stand_at_their_words_in_every_window(caplog) -> None:
    text = "acid jazz in bath a b c d e f g h i j k"
    (encoded,) = ENCODER([text])
    rows = np.arange(len(encoded.words), dtype=np.float16)
    answer = Answer(
        np.ones(2, np.float16), encoded.words, np.repeat(rows[:, None], len(SCHEMA.tags), 1)
    )
    features = encode_examples([Example(text, "other")], ENCODER, SCHEMA, [answer])
    assert len(features) > 1  # a window counts from its own beginning
    for window, feature in zip(encoded.windows, features, strict=True):
        there = [
            (piece, row) for row, piece in enumerate(encoded.word_pieces)
            if window.start <= piece < window.stop
        ]  # fmt: skip
        answers = feature.answers("ner")
        assert [feature.input_ids[at] for at, _ in answers] == [
            encoded.ids[piece] for piece, _ in there
        ]
        assert [int(answer[0]) for _, answer in answers] == [row for _, row in there]
        ((_, classes),) = feature.answers("classification")
        assert classes.tolist() == [1, 1]
    assert not caplog.messages


def test_words_that_a_teacher_parts_otherwise_have_no_answer(caplog) -> None:
    """Of `acid` and `jazz` it has made one word."""
    tags = np.zeros((2, len(SCHEMA.tags)), np.float16)
    answer = Answer(None, [(0, 9), (10, 12)], tags)
    (feature,) = encode_examples([Example("acid jazz in", "other")], ENCODER, SCHEMA, [answer])
    assert [ENCODER(["in"])[0].ids] == [[feature.input_ids[at]] for at in feature.answered]
    assert "parts 2 of 3 words otherwise" in caplog.text


def test_what_no_teacher_answered_has_no_answers() -> None:
    examples = [Example("acid jazz", "other"), Example("in bath", None, ())]
    for feature in encode_examples(examples, ENCODER, SCHEMA):
        assert feature.answers("ner") == feature.answers("classification") == []


def test_every_window_of_a_long_text_is_labelled() -> None:
    text = "a b c d e f g h i j k l m n o p bath"
    example = Example(text, "other", (Span(len(text) - 4, len(text), "city"),))
    features = encode_examples([example], ENCODER, SCHEMA)
    assert len(features) > 1
    assert {feature.class_label for feature in features} == {1}
    assert SCHEMA.tag_ids["B-city"] in features[-1].token_labels
    assert all(len(feature.input_ids) == len(feature.token_labels) <= 16 for feature in features)


def test_tokens_without_pieces_shift_nothing() -> None:
    example = from_tokens(["\u200b", "jazz", "\ufeff"], ["O", "B-genre", "O"], "music")
    (feature,) = encode_examples([example], ENCODER, SCHEMA)
    assert [tag for tag in feature.token_labels if tag != IGNORED] == [SCHEMA.tag_ids["B-genre"]]


def test_entities_that_tags_cannot_say_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    examples = [
        Example("in bath", None, (Span(3, 7, "city"),)),
        Example("x" * 99 + " at 5pm", None, (Span(103, 104, "genre"), Span(104, 106, "city"))),
        Example("in \u200b bath", None, (Span(3, 4, "city"),)),
    ]
    with caplog.at_level(logging.WARNING):
        encode_examples(examples, ENCODER, SCHEMA)
    (record,) = caplog.records
    assert record.name == "multitask_train.data.features"
    message = record.getMessage()
    assert message.startswith("3 of 4 entities")
    assert message.endswith(
        f"genre 103:104 '5' in '{'x' * 16} at 5pm'; learned instead: genre 103:106 '5pm'"
    )


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        (
            Example("in \u200b bath", None, (Span(3, 4, "city"),)),
            r"city 3:4 '\u200b' in 'in \u200b bath'; learned instead: nothing",
        ),
        (
            Example("play acidjazz", None, (Span(0, 9, "genre"),)),
            "genre 0:9 'play acid' in 'play acidjazz'; learned instead: genre 0:13 'play acidjazz'",
        ),
    ],
)
def test_the_warning_says_what_is_learned(
    example: Example, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    encode_examples([example], ENCODER, SCHEMA)
    assert caplog.messages[0].endswith(shown)


def test_exact_entities_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    spans = (Span(0, 4, "genre"), Span(5, 9, "genre"), Span(10, 14, "city"))
    encode_examples([Example("acid jazz bath", None, spans)], ENCODER, SCHEMA)
    encode_examples([Example("acid jazz", "music")], ENCODER, SCHEMA)
    assert not caplog.records


@pytest.mark.parametrize(
    ("words", "spans", "tags"),
    [
        ([(0, 2), (3, 5)], [Span(0, 5, "a")], ["B-a", "I-a"]),
        ([(0, 5)], [Span(2, 4, "a")], ["B-a"]),
        ([(0, 2), (2, 4)], [Span(0, 2, "a"), Span(2, 4, "a")], ["B-a", "B-a"]),
        ([(0, 4)], [Span(0, 2, "a"), Span(2, 4, "b")], ["B-a"]),
        ([(0, 2), (6, 8)], [Span(3, 5, "a")], ["O", "O"]),
        ([], [Span(0, 2, "a")], []),
    ],
)
def test_words_under_spans(words, spans, tags) -> None:
    assert word_tags(words, spans) == tags


def test_schema_is_sorted_and_unknown_labels_are_told() -> None:
    train = [Example("b", "z"), Example("a", "y", (Span(0, 1, "t"),))]
    schema = collect_schema(train)
    assert schema.classes == ("y", "z")
    assert unknown_labels([Example("a", "q", (Span(0, 1, "u"),))], schema) == ["q", "u"]
    with pytest.raises(DataError, match="no training sentence carries any entity"):
        collect_schema([Example("a", "b")])
