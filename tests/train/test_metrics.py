"""Scores against hand-counted cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitask_core.errors import ConfigError
from multitask_core.prediction import Entity, Prediction
from multitask_train.data import Example, Span
from multitask_train.data.examples import from_tokens
from multitask_train.metrics import BINS, Reliability, only, score, summary


def answer(label: str, *spans: tuple[int, int, str], score: float = 1.0) -> Prediction:
    entities = tuple(Entity(name, "", start, end, score) for start, end, name in spans)
    return Prediction(label, {label: score}, entities)


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
    assert metrics["ner"]["types"] == {
        "city": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2},
        "genre": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    }
    # music: precision 1/2, recall 1; greet: 1 and 1/2.
    assert metrics["classification"]["macro_f1"] == pytest.approx(2 / 3)
    # All scores are 1, and two of three labels, as of three entities, are right.
    assert metrics["classification"]["calibration_error"] == pytest.approx(1 / 3)
    assert metrics["ner"]["calibration_error"] == pytest.approx(1 / 3)
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


def test_macro_f1_counts_classes_of_gold_and_of_answers() -> None:
    gold, found = ("a", "a", "b", "c"), ("a", "b", "b", "d")
    examples = [Example("x", label) for label in gold]
    metrics = score(examples, [answer(label) for label in found])
    # a: 2/3, b: 2/3, c: 0, and d, which is no gold label: 0.
    assert metrics["classification"]["macro_f1"] == pytest.approx(1 / 3)


def test_types_without_gold_or_without_answers_are_there() -> None:
    example = Example("a b", "x", (Span(0, 1, "left-out"),))
    types = score([example], [answer("x", (2, 3, "made-up"))])["ner"]["types"]
    assert types == {
        "left-out": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        "made-up": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }


def test_without_any_entity_there_are_no_types_and_no_calibration_error() -> None:
    metrics = score([Example("a b", None, ())], [answer("x")])
    assert metrics["ner"]["types"] == {}
    assert metrics["ner"]["calibration_error"] is None
    assert metrics["classification"] is None


def test_an_answer_without_the_sentence_head_has_no_label_score() -> None:
    metrics = score([Example("a b", "x", ())], [Prediction("", {}, ())])
    assert metrics["classification"]["accuracy"] == 0
    assert metrics["classification"]["calibration_error"] is None


def test_entity_scores_count_as_right_for_exact_spans_and_types() -> None:
    example = Example("Bath or York", None, (Span(0, 4, "city"), Span(8, 12, "city")))
    answers = [
        answer("x", (0, 4, "city"), (8, 12, "genre"), score=0.9),
        answer("x", (0, 7, "city"), (8, 12, "city"), score=0.7),
    ]
    found = score([example, example], answers)["ner"]["calibration_error"]
    # Half of the two at 0.9 and half of the two at 0.7 are right.
    assert found == pytest.approx((2 * 0.4 + 2 * 0.2) / 4)


def test_calibration_error_by_hand() -> None:
    honest = [(0.8, True)] * 4 + [(0.8, False)]
    assert Reliability.of(honest).error == pytest.approx(0)
    # Two bins: 0.95 is right every second time, 0.3 always.
    assert Reliability.of(
        [(0.95, True), (0.95, False), (0.3, True), (0.3, True)]
    ).error == pytest.approx((2 * 0.45 + 2 * 0.7) / 4)
    # One bin, (14/15, 1]: its mean score is compared, not each score.
    assert Reliability.of([(0.95, True), (0.99, True)]).error == pytest.approx(0.03)
    assert Reliability.of([]).error is None


def test_bins_hold_their_upper_bound() -> None:
    counts = Reliability.of([(0.0, True), (1 / BINS, True), (1.0, True), (1.0 + 1e-7, True)]).counts
    assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_error_is_a_share_and_that_of_the_definition(scored) -> None:
    found = Reliability.of(scored)
    error = 0.0
    for low, high in zip(range(BINS), range(1, BINS + 1), strict=True):
        inside = [
            (value, right)
            for value, right in scored
            if low < value * BINS <= high or (low == 0 and value == 0)
        ]
        if inside:
            mean, share = (float(np.mean(column)) for column in zip(*inside, strict=True))
            error += len(inside) / len(scored) * abs(mean - share)
    assert found.error == pytest.approx(error, abs=1e-9)
    assert 0 <= found.error <= 1
    assert found.counts.sum() == len(scored)


def joint() -> dict:
    examples = [Example("a b", "x", (Span(0, 1, "t"),)), Example("a b", "y", ())]
    return score(examples, [answer("x", (0, 1, "t")), answer("x")])


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", 0.75), ("accuracy", 0.5), ("macro_f1", 1 / 3), ("f1", 1.0), ("exact_match", 0.5)],
)
def test_every_best_metric(name: str, value: float) -> None:
    assert summary(joint(), name) == pytest.approx(value)


def test_a_best_metric_that_dev_does_not_give_is_refused() -> None:
    labels = score([Example("a", "b")], [answer("b")])
    assert summary(labels, "macro_f1") == 1
    for name in ("f1", "exact_match"):
        with pytest.raises(ConfigError, match=f"{name}.*Here there is accuracy, macro_f1: choose"):
            summary(labels, name)
    with pytest.raises(ConfigError, match="Here there is none of them"):
        summary(only(labels, "ner"))


def test_the_head_that_was_not_trained_has_no_metrics() -> None:
    metrics = joint()
    assert only(metrics, "both") == metrics
    labels = only(metrics, "classification")
    assert labels == {**metrics, "ner": None, "joint": None}
    assert only(metrics, "ner") == {**metrics, "classification": None, "joint": None}
    assert metrics["joint"] is not None
