"""Accuracy and F1 before and after, with their bootstrap interval."""

import pytest

from multitask_core.prediction import Entity, Prediction
from multitask_export.task import accuracy_change, f1_change
from multitask_train.data import Example, Span

TEXT = "Ann met Bob"


def answer(label: str, *names: str) -> Prediction:
    entities = tuple(
        Entity("person", name, TEXT.index(name), TEXT.index(name) + 3, 1.0) for name in names
    )
    return Prediction(label, {label: 1.0}, entities)


EXAMPLES = [
    Example(TEXT, "meet", (Span(0, 3, "person"), Span(8, 11, "person"))),
    Example(TEXT, "meet", ()),
    Example(TEXT, None, (Span(0, 3, "person"),)),
]


def test_figures_worked_out_by_hand() -> None:
    before = [answer("meet", "Ann", "Bob"), answer("meet"), answer("part", "Ann")]
    after = [answer("part", "Ann"), answer("meet", "Bob"), answer("part", "Ann")]
    accuracy = accuracy_change(EXAMPLES, before, after)
    assert (accuracy.before, accuracy.after, accuracy.loss) == (100, 50, 50)
    f1 = f1_change(EXAMPLES, before, after)
    # 2 of 3 found are right, 2 of 3 gold are found
    assert (f1.before, f1.after) == (100, pytest.approx(100 * 2 / 3))
    assert f1.low <= f1.after - f1.before <= f1.high <= 0


def test_no_change_has_no_width() -> None:
    answers = [answer("part", "Ann"), answer("meet"), answer("meet", "Bob")]
    change = f1_change(EXAMPLES, answers, answers)
    assert (change.loss, change.low, change.high) == (0, 0, 0)


def test_the_interval_is_that_of_the_binomial() -> None:
    """One of 100 labels is lost: the interval of the change is about that of 1 % of 100."""
    examples = [Example(TEXT, "meet")] * 100
    before = [answer("meet")] * 100
    after = [answer("part"), *before[1:]]
    change = accuracy_change(examples, before, after)
    assert change.loss == 1
    assert (change.low, change.high) == (pytest.approx(-3, abs=1), 0)


def test_what_is_not_annotated_is_not_judged() -> None:
    examples = [Example(TEXT, None, ())]
    assert accuracy_change(examples, [answer("a")], [answer("b")]) is None
    assert f1_change([Example(TEXT, "meet")], [answer("a")], [answer("b")]) is None
