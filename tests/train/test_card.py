"""The model card: readable by the Hub's own parser, and complete for people."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from multitask_core.labels import LabelSchema
from multitask_core.prediction import Entity, Prediction
from multitask_train.card import model_card, shown
from multitask_train.data import Example, Span
from multitask_train.environment import environment
from multitask_train.metrics import only, score
from multitask_train.settings import FitSettings

FIGURES = [Path("/tmp/x/curves.png"), Path("/tmp/x/confusion.png")]


def values(**sections) -> dict:
    data = {"train": "hub:owner/corpus?config=en", "dev": "data/snips/dev.jsonl.gz"}
    data |= {"test": "data/snips"} | sections.pop("data", {})
    return FitSettings.model_validate({"data": data, **sections}).model_dump(mode="json")


def measured() -> dict:
    examples = [Example("in Bath", "go", (Span(3, 7, "ci|ty"),)), Example("hi", "greet", ())]
    found = (Entity("ci|ty", "Bath", 3, 7, 0.75),)
    predictions = [Prediction("go", {"go": 0.75}, found), Prediction("go", {"go": 0.75}, ())]
    return score(examples, predictions)


def result(**changes) -> dict:
    return {
        "epoch": 3,
        "dev": measured(),
        "test": measured(),
        "train_seconds": 12.5,
        "temperatures": {"classification": 1.234, "ner": 0.9},
        "parameters": {"trained": 1000, "total": 22_700_000},
        "updates": 640,
        "tokens_per_s": 4321.0,
        **changes,
    }


def card(settings: dict | None = None, metrics: dict | None = None, **rest) -> str:
    schema = LabelSchema(("go", "greet"), ("ci|ty",))
    return model_card("my-run", schema, settings or values(), metrics or result(), **rest)


@pytest.mark.parametrize(
    ("epochs", "best", "shown"),
    [
        (4, 0, "4 at most, none of them better by dev mean than what it started from"),
        (0, 0, "0: what it started from, not trained further"),
    ],
)
def test_a_card_tells_of_weights_that_no_epoch_made(epochs: int, best: int, shown: str) -> None:
    starts = {"start_from": ["/home/me/runs/a", "runs/b"]}
    text = card(values(optim={"epochs": epochs}, model=starts), result(epoch=best))
    assert f"- epochs: {shown}\n" in text
    assert "- started from: the mean weights of a, runs/b\n" in text


def header(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_the_hub_reads_the_header() -> None:
    data = ModelCard(card(values(run={"license": "apache-2.0"}))).data
    assert data.license == "apache-2.0"
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.datasets == ["owner/corpus"]
    assert data.metrics == ["f1", "precision", "recall", "accuracy"]
    assert data.model_name == "my-run"
    found = {(one.task_type, one.metric_name): one for one in data.eval_results}
    assert len(found) == len(data.eval_results) == 6
    accuracy = found["text-classification", "Accuracy"]
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.5)
    assert (accuracy.dataset_type, accuracy.dataset_split) == ("snips", "test")
    entities = found["token-classification", "Entity F1 (strict)"]
    assert (entities.metric_type, entities.metric_value) == ("f1", 1.0)
    assert found["text-classification", "Macro F1"].metric_value == 0.3333


def test_without_test_data_dev_is_reported() -> None:
    text = card(values(data={"test": []}), result(test=None))
    (first, *_) = ModelCard(text).data.eval_results
    assert (first.dataset_type, first.dataset_split) == ("snips", "validation")
    assert "### Entity types (dev)" in text
    assert "| test (" not in text


def test_several_sources_are_one_dataset() -> None:
    text = card(values(data={"test": ["data/banking77", "hub:me/wnut17?split=test"]}))
    (first, *_) = ModelCard(text).data.eval_results
    assert first.dataset_name == "banking77 + me/wnut17"
    assert first.dataset_type == "banking77-me-wnut17"


def test_people_find_every_figure() -> None:
    text = card(figures=FIGURES, environment=environment())
    error = "25.00"  # labels: score 0.75, half of them right; the entity: 0.75 and right
    row = f"50.00 | 33.33 | 100.00 | 100.00 | 100.00 | 100.00 | 50.00 | {error} | {error} |"
    assert f"| dev (2) | {row}" in text
    assert f"| test (2) | {row}" in text
    assert "| ci\\|ty | 100.00 | 100.00 | 100.00 | 1 |" in text
    assert "![Gold labels against predicted ones (test)](confusion.png)" in text
    assert "![Losses, dev metrics, weights of the tasks and learning rate over the updates]" in text
    for line in (
        "- strategy: full",
        "- loss balancer: equal",
        "- parameters trained: 1,000 of 22,700,000",
        "- epochs: 5 at most, best: 3 by dev mean",
        "- updates: 640",
        "- seed: 13",
        "- seconds: 12.5",
        "- tokens/s: 4321.0",
        "- precision: fp32",
    ):
        assert line in text.splitlines()
    assert f"Python {environment()['python']}" in text
    assert "torch " in text.partition("## Environment")[2]


def test_scores_say_how_they_were_calibrated() -> None:
    assert "sentence head T = 1.234, token head T = 0.900" in card()
    one = card(metrics=result(temperatures={"classification": 1.5, "ner": 1.0}))
    assert "(sentence head T = 1.500;" in one
    assert "The token head is not calibrated." in one
    assert "entities whose span and type are right" in card()
    assert "entities whose span and type are right" not in one
    for plain in (
        card(values(run={"calibrate": False})),
        card(metrics=result(temperatures={"classification": 1.0, "ner": 1.0})),
    ):
        assert "scores are softmax values that were not calibrated" in plain
        assert "T =" not in plain


def test_the_licence_is_the_users_choice() -> None:
    text = card()
    assert "license" not in header(text)
    assert "Choose one" in text
    assert "`mit`, set by" in card(values(run={"license": "mit"}))


@pytest.mark.parametrize(
    ("tasks", "hub", "words"),
    [
        ("ner", "token-classification", "its labels mean nothing"),
        ("classification", "text-classification", "its entities mean nothing"),
    ],
)
def test_a_single_task_run_says_so(tasks: str, hub: str, words: str) -> None:
    metrics = only(measured(), tasks)
    text = card(values(data={"tasks": tasks}), result(dev=metrics, test=metrics))
    assert {one.task_type for one in ModelCard(text).data.eval_results} == {hub}
    assert header(text)["pipeline_tag"] == hub
    assert words in text


def test_no_folder_of_this_machine_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    data = {"train": str(tmp_path / "corpus"), "test": str(tmp_path / "corpus" / "test.jsonl")}
    text = card(values(model={"encoder": str(folder)}, data=data))
    assert str(tmp_path) not in text
    assert "`encoder`" in text
    assert "- test: corpus/test.jsonl" in text
    assert "base_model" not in header(text)


def test_shown() -> None:
    assert shown("demo") == "demo"
    assert shown("data/snips") == "data/snips"
    assert shown("hub:a/b?split=x") == "hub:a/b?split=x"
    assert shown("bert-base-uncased") == "bert-base-uncased"
    assert shown("../secret/snips") == "snips"


def test_a_run_without_these_figures_still_has_a_card() -> None:
    metrics = {"epoch": 1, "dev": measured(), "train_seconds": 1.0}
    text = card(values(data={"test": []}), metrics)
    assert "- parameters trained" not in text
    assert "not calibrated" in text
