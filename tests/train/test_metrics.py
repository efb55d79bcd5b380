"""Scores against hand-counted cases."""

import pytest

from multitask_core.prediction import Entity, Prediction
from multitask_train.data import Example, Span
from multitask_train.data.examples import from_tokens
from multitask_train.metrics import score, summary


def answer(label: str, *spans: tuple[int, int, str]) -> Prediction:
    entities = tuple(Entity(name, "", start, end, 1.0) for start, end, name in spans)
    return Prediction(label, {label: 1.0}, entities)


def test_hand_counted() -> None:
    examples = [
        Example("play acid jazz in Bath", "music", (Span(5, 14, "genre"), Span(18, 22, "city"))),
        Example("hi", "greet", ()),
        Example("no entities marked", "greet"),
        Example("only Bath", None, (Span(5, 9, "city"),)),
    ]
    answers = [
        answer("music", (5, 9, "genre"), (18, 22, "city")),
        answer("music"),
        answer("greet", (0, 2, "city")),
        answer("greet", (5, 9, "city")),
    ]
    metrics = score(examples, answers)
    assert metrics["classification"]["accuracy"] == pytest.approx(2 / 3)
    # Three gold entities, three found, two of them right.
    assert metrics["ner"]["f1"] == pytest.approx(2 / 3)
    assert metrics["ner"]["token_accuracy"] == pytest.approx(7 / 8)
    assert metrics["joint"]["exact_match"] == 0
    assert metrics["examples"] == 4
    assert summary(metrics) == pytest.approx(2 / 3)


def test_half_a_word_is_not_the_word() -> None:
    example = Example("at 10pm", "a", (Span(3, 5, "hour"),))
    assert score([example], [answer("a", (3, 7, "hour"))])["ner"]["f1"] == 0
    assert score([example], [answer("a", (3, 5, "hour"))])["ner"]["f1"] == 1


def test_a_part_of_a_corpus_token_is_not_the_token() -> None:
    example = from_tokens(["ask", "@zoe_b"], ["O", "B-person"], "a")
    part, fragments = (
        answer("a", (5, 10, "person")),
        answer("a", (4, 5, "person"), (5, 9, "person")),
    )
    for wrong in (part, fragments):
        metrics = score([example], [wrong])
        assert metrics["ner"]["f1"] == 0
        assert metrics["joint"]["exact_match"] == 0
    assert score([example], [answer("a", (4, 10, "person"))])["joint"]["exact_match"] == 1


def test_tasks_without_gold_are_none() -> None:
    metrics = score([Example("a", "b")], [answer("b")])
    assert metrics["ner"] is None
    assert metrics["joint"] is None
    assert summary(metrics) == 1


def test_an_entity_that_was_found_nowhere_counts() -> None:
    example = Example("a \u200b b", "x", (Span(2, 3, "odd"),))
    assert score([example], [answer("x")])["ner"]["recall"] == 0
