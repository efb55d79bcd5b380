"""Temperatures against known ones, and what folding them in does to answers and scores."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitask_core.decode import softmax
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_train import MultiTaskModel, calibration, checkpoint
from multitask_train.calibration import EntityAnswers, LabelAnswers, Temperatures
from multitask_train.data import Example, Span
from tiny import SENTENCES, random_model

TEXTS = [f"{sentence} {number}" for number in range(12) for sentence in SENTENCES]


def sampled(seed: int, count: int = 4000, labels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and gold labels drawn with the probabilities that their softmax states."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, labels))
    return logits.astype(np.float32), (logits + random.gumbel(size=logits.shape)).argmax(axis=1)


def label_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    answers = LabelAnswers([row[None] for row in logits], gold.tolist())
    return answers.fit()[0]


@given(seed=st.integers(0, 2**31), temperature=st.floats(0.1, 10))
@settings(deadline=None, max_examples=20)
def test_a_known_temperature_of_labels_is_found(seed: int, temperature: float) -> None:
    logits, gold = sampled(seed)
    found = label_temperature((logits * temperature).astype(np.float32), gold)
    # The standard error with so many labels is about 1.5 %.
    assert found == pytest.approx(temperature, rel=0.15)


@given(seed=st.integers(0, 2**31), temperature=st.floats(0.1, 10))
@settings(deadline=None, max_examples=20)
def test_a_known_temperature_of_entities_is_found(seed: int, temperature: float) -> None:
    random = np.random.default_rng(seed)
    words = [random.normal(0, 2, (random.integers(1, 4), 7)) for _ in range(4000)]
    scores = [softmax(one).max(axis=1).mean() for one in words]
    right = (random.random(len(words)) < scores).tolist()
    scaled = [(one * temperature).astype(np.float32) for one in words]
    tags = [one.argmax(axis=1) for one in words]
    assert EntityAnswers(scaled, tags, right).fit()[0] == pytest.approx(temperature, rel=0.3)


@given(scale=st.floats(0.2, 5))
@settings(deadline=None, max_examples=20)
def test_scaled_logits_scale_the_temperature(scale: float) -> None:
    logits, gold = sampled(1, 300)
    plain = label_temperature(logits, gold)
    scaled = label_temperature((logits * scale).astype(np.float32), gold)
    assert scaled == pytest.approx(scale * plain, rel=1e-3)


def test_likelihood_of_labels_by_hand() -> None:
    logits = np.log(np.array([[0.8, 0.2], [0.5, 0.5]], np.float32))
    gold = np.array([0, 1])
    expected = -(np.log(0.8) + np.log(0.5)) / 2
    assert calibration.label_nll(logits, gold) == pytest.approx(expected, rel=1e-6)
    # T = 1/2 squares the odds: 16 : 1 and 1 : 1.
    expected = -(np.log(16 / 17) + np.log(0.5)) / 2
    assert calibration.label_nll(logits, gold, 0.5) == pytest.approx(expected, rel=1e-6)


def test_likelihood_of_entities_by_hand() -> None:
    logits = np.log(np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]], np.float32))
    # The first entity has two words and the score (0.8 + 0.4) / 2, the second one and 0.9.
    tags, owners, right = np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([True, False])
    expected = -(np.log(0.6) + np.log(0.1)) / 2
    assert calibration.entity_nll(logits, tags, owners, right) == pytest.approx(expected, rel=1e-6)
    sure = calibration.entity_nll(logits * 1e3, logits.argmax(1), owners, ~np.array([True, True]))
    assert 20 < sure < 40


@pytest.fixture
def model(tiny_encoder: Path, schema: LabelSchema) -> MultiTaskModel:
    return random_model(tiny_encoder, schema)


@pytest.fixture
def pipeline(model: MultiTaskModel, tiny_encoder: Path) -> Pipeline:
    encoder = checkpoint.text_encoder(checkpoint.load_tokenizer(str(tiny_encoder)), model)
    return Pipeline(encoder, checkpoint.TorchEncoder(model), model.config.schema)


@pytest.fixture
def examples(pipeline: Pipeline) -> list[Example]:
    """What the model answers, but every fourth sentence has another label and no entities."""
    found = []
    for index, (text, answer) in enumerate(zip(TEXTS, pipeline.predict(TEXTS), strict=True)):
        classes = pipeline.schema.classes
        label = classes[(classes.index(answer.label) + (index % 4 == 0)) % len(classes)]
        spans = tuple(Span(one.start, one.end, one.type) for one in answer.entities)
        found.append(Example(text, label, () if index % 4 == 0 else spans))
    return found


def label_nll(pipeline: Pipeline, examples: list[Example]) -> float:
    answers = pipeline.predict([example.text for example in examples])
    pairs = zip(examples, answers, strict=True)
    return -float(np.mean([np.log(answer.scores[example.label]) for example, answer in pairs]))


def test_the_fitted_labels_are_the_likeliest(
    model: MultiTaskModel, pipeline: Pipeline, examples: list[Example]
) -> None:
    found = calibration.fit(pipeline, examples)
    assert found.classification != pytest.approx(1, abs=0.05)
    assert found.ner != pytest.approx(1, abs=0.05)
    before = label_nll(pipeline, examples)
    calibration.apply(model, found)
    best = label_nll(pipeline, examples)
    assert best < before
    for factor in (0.9, 1.1):
        calibration.apply(model, Temperatures(classification=factor))
        assert label_nll(pipeline, examples) > best
        calibration.apply(model, Temperatures(classification=1 / factor))
    # A model with honest scores needs no further temperature.
    again = calibration.fit(pipeline, examples)
    assert (again.classification, again.ner) == pytest.approx((1, 1), abs=1e-3)


def test_folding_divides_logits_and_keeps_answers(
    model: MultiTaskModel, pipeline: Pipeline
) -> None:
    encoded = pipeline.text_encoder(TEXTS)
    logits, answers = pipeline.logits(encoded), pipeline.answer(encoded)
    calibration.apply(model, Temperatures(classification=2.5, ner=0.4))
    for before, after in zip(logits, pipeline.logits(encoded), strict=True):
        np.testing.assert_allclose(after[0], before[0] / 2.5, rtol=1e-4, atol=1e-5)
        for left, right in zip(before[1], after[1], strict=True):
            np.testing.assert_allclose(right, left / 0.4, rtol=1e-4, atol=1e-4)
    for index, (before, after) in enumerate(zip(answers, pipeline.answer(encoded), strict=True)):
        assert after.label == before.label
        assert [(one.type, one.start, one.end) for one in after.entities] == [
            (one.type, one.start, one.end) for one in before.entities
        ]
        expected = softmax(logits[index][0].mean(axis=0) / 2.5)
        assert list(after.scores.values()) == pytest.approx(expected.tolist(), abs=1e-5)
        assert after.score < before.score
    assert any(answer.entities for answer in answers)


def test_temperatures_multiply_up_and_travel_with_the_model(
    model: MultiTaskModel, tmp_path: Path
) -> None:
    weights = model.sentence_head.output.weight.detach().clone()
    bias = model.token_head.output.bias.detach().clone()
    assert calibration.applied(model) == Temperatures()
    calibration.apply(model, Temperatures(2.0, 3.0))
    total = calibration.apply(model, Temperatures(1.5, 0.5))
    assert total == calibration.applied(model) == Temperatures(3.0, 1.5)
    torch.testing.assert_close(model.sentence_head.output.weight, weights / 3)
    torch.testing.assert_close(model.token_head.output.bias, bias / 1.5)
    model.save_pretrained(tmp_path)
    assert calibration.applied(MultiTaskModel.from_pretrained(tmp_path)) == total


def test_what_the_schema_lacks_does_not_count(pipeline: Pipeline, examples: list[Example]) -> None:
    odd = [Example(text, "unheard-of", (Span(0, 1, "unheard-of"),)) for text in ("a", "b", "c")]
    with_odd, without = (calibration.fit(pipeline, one) for one in (examples + odd, examples))
    assert with_odd == without


def test_a_head_without_enough_labels_keeps_one(
    pipeline: Pipeline, examples: list[Example], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    few = examples[: calibration.MIN_ANSWERS - 1]
    found = calibration.fit(pipeline, [Example(one.text, one.label) for one in few])
    assert found == Temperatures()
    assert "sentence head: 1; 49 labels on dev, fitting needs 50" in caplog.text
    assert "token head: 1; 0 entities on dev" in caplog.text
    assert calibration.fit(pipeline, []) == Temperatures()


def test_a_head_that_was_not_trained_keeps_one(pipeline: Pipeline, examples: list[Example]) -> None:
    both = calibration.fit(pipeline, examples)
    assert calibration.fit(pipeline, examples, "ner") == Temperatures(1.0, both.ner)
    assert calibration.fit(pipeline, examples, "classification") == Temperatures(
        both.classification, 1.0
    )


def test_without_an_error_no_temperature_is_best(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    right = [
        Example(text, answer.label)
        for text, answer in zip(TEXTS, pipeline.predict(TEXTS), strict=True)
    ]
    assert calibration.fit(pipeline, right).classification == 1
    assert f"all {len(TEXTS)} labels on dev are right" in caplog.text


def test_a_temperature_at_the_bound_is_said(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [
        Example(text, min(answer.scores, key=answer.scores.__getitem__))
        for text, answer in zip(TEXTS, pipeline.predict(TEXTS), strict=True)
    ]
    found = calibration.fit(pipeline, wrong)
    assert found.classification == pytest.approx(calibration.BOUNDS[1], rel=1e-3)
    assert "at the bound of the search" in caplog.text


def test_long_corpora_are_sampled_over_their_whole_length(
    pipeline: Pipeline, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MAX_EXAMPLES", len(examples))
    whole = calibration.fit(pipeline, examples)
    doubled = [example for example in examples for _ in range(2)]
    assert calibration.fit(pipeline, doubled) == whole
