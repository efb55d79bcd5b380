"""Whole runs of `fit` in this process: what the settings promise, and what is refused at set-up."""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import T5Config, T5Model

from multitask_core.config import parse
from multitask_core.errors import ArtifactError, ConfigError, DataError
from multitask_core.text import MAX_CHARS, MAX_PIECES
from multitask_train import __main__, checkpoint
from multitask_train.data import Example, Span
from multitask_train.data.examples import write_jsonl
from multitask_train.evaluate import describe, evaluate_checkpoint
from multitask_train.fit import fit
from multitask_train.settings import FitSettings

EXAMPLES = [
    *(Example(f"play {one}", "music", (Span(5, 9, "genre"),)) for one in ("jazz", "rock", "folk")),
    *(Example(f"wake me at {hour}", "alarm", ()) for hour in range(3)),
]

# Rates and epochs after which a run answers all of them rightly.
LEARN = {"epochs": 25, "learning_rate": 2e-3, "head_learning_rate": 5e-3}


class StoppedError(Exception):
    """Stands for a process that ended."""


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps the precision of a process's first run."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", EXAMPLES)
    return tmp_path


@pytest.fixture
def values(corpus: Path, tiny_encoder: Path) -> dict[str, dict[str, Any]]:
    """Settings of a run of one short epoch."""
    return {
        "model": {"encoder": str(tiny_encoder), "max_length": 32, "stride": 8, "dropout": 0.0},
        "data": {split: str(corpus) for split in ("train", "dev", "test")},
        "optim": {"epochs": 1, "batch_size": 8},
        "run": {"output": str(corpus / "run")},
    }


def run(values: dict[str, dict[str, Any]], **sections: dict[str, Any]) -> dict[str, Any]:
    merged = {**values}
    for section, given in sections.items():
        merged[section] = {**values.get(section, {}), **given}
    return fit(parse(FitSettings, merged, "the test"))


def test_own_training_data_is_never_judged_on_the_demo(corpus: Path, values) -> None:
    values["data"] = {"train": str(corpus)}
    with pytest.raises(DataError, match=r"data\.dev names no source"):
        run(values)
    assert run(values, data={"holdout": 0.4})["dev"]["examples"] == 2


def test_texts_beyond_what_a_server_takes_are_measured(corpus: Path, values) -> None:
    long = Example("play" + " " * MAX_CHARS + "jazz", "music", ())
    write_jsonl(corpus / "dev.jsonl", [*EXAMPLES, long])
    long = Example("a " * (MAX_PIECES + 1) + "a", "music", ())
    write_jsonl(corpus / "test.jsonl", [*EXAMPLES, long])
    metrics = run(values)
    assert metrics["dev"]["examples"] == metrics["test"]["examples"] == len(EXAMPLES) + 1


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_changed_content_is_not_gone_on_with(
    corpus: Path, values, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("multitask_train.checkpoint.save", stop)
        with pytest.raises(StoppedError):
            run(values)
    with (corpus / f"{split}.jsonl").open("a") as stream:
        stream.write('{"text": "play soul", "label": "music", "entities": []}\n')
    with pytest.raises(ConfigError, match=rf"content of data\.{split}: '\w+' there, '\w+' now"):
        run(values)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"run": {"best_metric": "exact_match"}}, "Here there is accuracy, macro_f1, f1: choose"),
        ({"data": {"tasks": "ner"}, "run": {"best_metric": "accuracy"}}, "Here there is f1: "),
    ],
)
def test_a_best_metric_that_dev_does_not_give_is_refused_before_training(
    corpus: Path, values, sections: dict[str, Any], message: str
) -> None:
    labels = [Example(one.text, one.label) for one in EXAMPLES]
    entities = [Example(one.text, None, one.entities) for one in EXAMPLES]
    write_jsonl(corpus / "dev.jsonl", labels + entities)
    with pytest.raises(ConfigError, match=message):
        run(values, **sections)
    assert not (corpus / "run" / "state").exists()


@pytest.mark.parametrize("content", [None, b"cut"])
def test_an_encoder_that_cannot_be_loaded_is_a_setting_to_mend(
    tiny_encoder: Path, values, tmp_path: Path, content: bytes | None
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    weights = folder / "model.safetensors"
    weights.unlink() if content is None else weights.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot load the encoder"):
        run(values, model={"encoder": str(folder)})


def test_a_checkpoint_or_a_decoder_is_no_encoder(
    tiny_checkpoint: Path, tiny_encoder: Path, values, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"name it as model\.start_from"):
        run(values, model={"encoder": str(tiny_checkpoint)})
    sizes = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1}
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    T5Model(T5Config(**sizes, num_heads=2)).save_pretrained(folder)
    with pytest.raises(ConfigError, match="cannot read a text by itself: .*decoder_input_ids"):
        run(values, model={"encoder": str(folder)})


def test_an_output_that_cannot_be_written_is_told_before_training(corpus: Path, values) -> None:
    for output in (corpus / "train.jsonl", corpus / "train.jsonl" / "run"):
        with pytest.raises(ConfigError, match=rf"run\.output {output}: a run writes in it"):
            run(values, run={"output": str(output)})


def test_a_head_that_was_not_trained_is_not_measured(values, corpus: Path, capsys) -> None:
    run(values, data={"tasks": "ner"})
    words = ["evaluate", "--checkpoint", str(corpus / "run"), "--data", str(corpus)]
    assert __main__.main(words) == 0
    shown, values = capsys.readouterr().out.splitlines()[-2:]
    assert "accuracy" not in shown.replace("token accuracy", "")
    assert json.loads(values)["classification"] is json.loads(values)["joint"] is None


def test_macro_f1_is_shown(tiny_checkpoint: Path) -> None:
    metrics = evaluate_checkpoint(tiny_checkpoint, EXAMPLES)
    assert "macro F1" in describe(metrics)


@pytest.mark.parametrize(("strategy", "idles"), [("heads", True), ("full", False)])
def test_a_balancer_without_an_encoder_to_part_is_named(
    values, caplog: pytest.LogCaptureFixture, strategy: str, *, idles: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        run(values, optim={"strategy": strategy}, loss={"balancer": "pcgrad"})
    assert ("loss.balancer pcgrad parts" in caplog.text) is idles


def test_scores_are_left_alone_without_calibration(values, corpus: Path) -> None:
    # Many sentences with answers that are wrong, which calibration would act on.
    write_jsonl(corpus / "dev.jsonl", EXAMPLES * 10)
    left = run(values, run={"calibrate": False})
    assert left["temperatures"] == {"classification": 1.0, "ner": 1.0}
    fitted = run(values, run={"output": str(corpus / "other")})
    assert fitted["temperatures"] != left["temperatures"]
    ours, theirs = (checkpoint.load(corpus / name)[0] for name in ("run", "other"))
    assert not torch.equal(ours.sentence_head.output.weight, theirs.sentence_head.output.weight)
    assert torch.equal(ours.sentence_head.dense.weight, theirs.sentence_head.dense.weight)


def test_a_run_starts_from_a_checkpoint(values, corpus: Path, caplog) -> None:
    run(values, run={"calibrate": False})
    other = {"output": str(corpus / "other"), "calibrate": False}
    with caplog.at_level(logging.INFO):
        run(
            values,
            model={"start_from": str(corpus / "run")},
            optim={"learning_rate": 1e-12, "head_learning_rate": 1e-12, "weight_decay": 0.0},
            run={**other, "seed": 5},
        )
    assert f"from {corpus / 'run'}: encoder, sentence_head, token_head" in caplog.text
    ours, theirs = (checkpoint.load(corpus / name)[0] for name in ("run", "other"))
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], weight, atol=1e-6, rtol=0)


def test_a_start_that_no_epoch_betters_is_kept(values, corpus: Path, capsys, caplog) -> None:
    learned = run(values, optim=LEARN, run={"calibrate": False})
    assert learned["dev"]["ner"]["f1"] == 1
    ruinous = {"epochs": 2, "learning_rate": 5.0, "head_learning_rate": 5.0, "warmup": 0.0}
    with caplog.at_level(logging.WARNING):
        found = run(
            values,
            model={"start_from": str(corpus / "run")},
            optim=ruinous,
            run={"output": str(corpus / "other"), "calibrate": False},
        )
    assert "no epoch was better on dev than what model.start_from gave" in caplog.text
    assert (found["epoch"], found["updates"]) == (0, 2)
    assert found["dev"] == learned["dev"]
    assert "as started from: dev accuracy 100.00" in capsys.readouterr().err
    ours, theirs = (checkpoint.load(corpus / name)[0].state_dict() for name in ("run", "other"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    history = json.loads((corpus / "other" / "history.json").read_text())
    assert [one["epoch"] for one in history["epochs"]] == [0, 1, 2]


def test_a_run_starts_from_the_mean_of_several_checkpoints(values, corpus: Path, caplog) -> None:
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        run(values, run={"output": str(corpus / name), "seed": seed, "calibrate": False})
    names = ["a", "b", "c"]
    with caplog.at_level(logging.INFO):
        found = run(
            values,
            model={"start_from": [str(corpus / name) for name in names]},
            optim={"epochs": 0},
            run={"calibrate": False},
        )
    assert f"from the mean of {corpus / 'a'}, {corpus / 'b'}, {corpus / 'c'}: enc" in caplog.text
    assert (found["epoch"], found["updates"]) == (0, 0)
    assert found["test"]["examples"] == len(EXAMPLES)
    mean, *states = (checkpoint.load(corpus / name)[0].state_dict() for name in ("run", *names))
    for name, weight in mean.items():
        expected = torch.stack([one[name] for one in states]).mean(dim=0)
        torch.testing.assert_close(weight, expected, atol=1e-6, rtol=1e-6)
    card = (corpus / "run" / "README.md").read_text()
    assert "- started from: the mean weights of a, b, c" in card


def test_a_mean_worse_than_its_parts_is_told(values, corpus: Path, caplog) -> None:
    """Heads that began at random have nothing in common; the same twice has its mean in itself."""
    for name, seed in (("a", 1), ("b", 2)):
        run(values, optim=LEARN, run={"output": str(corpus / name), "seed": seed})
    for others, told in (("b", True), ("a", False)):
        caplog.clear()
        run(
            values,
            model={"start_from": [str(corpus / "a"), str(corpus / others)]},
            optim={"epochs": 0},
            run={"overwrite": True},
        )
        assert ("have a mean that is worth something" in caplog.text) is told


def test_checkpoints_without_a_mean_are_refused(values, corpus: Path) -> None:
    run(values, run={"output": str(corpus / "both")})
    run(values, run={"output": str(corpus / "ner")}, data={"tasks": "ner"})
    other = [replace(one, label=one.label and f"{one.label}s") for one in EXAMPLES]
    for split in ("train", "dev", "test"):
        write_jsonl(corpus / f"other/{split}.jsonl", other)
    run(values, run={"output": str(corpus / "named")}, data={"train": str(corpus / "other"),
        "dev": str(corpus / "other"), "test": []})  # fmt: skip
    for name, message in (
        ("ner", r"trained with data\.tasks both, ner; a mean"),
        ("named", "named gives encoder, token_head, .*both encoder, sentence_head, token_head: "),
    ):
        with pytest.raises(ConfigError, match=message):
            run(values, model={"start_from": [str(corpus / "both"), str(corpus / name)]})


@pytest.mark.parametrize("strategy", ["full", "gradual", "heads"])
def test_no_epoch_trains_nothing(values, corpus: Path, strategy: str, caplog) -> None:
    """Whatever else is asked for; with labels that the start knows, or it is refused."""
    run(values, optim={"precision": "bf16"}, run={"calibrate": False})
    start = {"model": {"start_from": str(corpus / "run")}, "optim": {"epochs": 0}}
    start["optim"] |= {"strategy": strategy, "precision": "bf16", "ema_decay": 0.9}
    with caplog.at_level(logging.WARNING):
        found = run(
            values,
            **start,
            loss={"balancer": "pcgrad"},
            run={"output": str(corpus / "other"), "calibrate": False},
        )
    assert not caplog.text
    assert found["parameters"]["trained"] == found["epoch"] == found["updates"] == 0
    assert not (corpus / "other" / "curves.png").exists()
    ours, theirs = (checkpoint.load(corpus / name)[0].state_dict() for name in ("run", "other"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    taught = {"loss": {"ner_teacher": str(corpus / "run")}, "run": {"overwrite": True}}
    with pytest.raises(ConfigError, match=r"optim\.epochs 0 trains nothing, so that no teacher"):
        run(values, **start, **taught)
    with pytest.raises(ConfigError, match=r"optim\.epochs 0 writes what model\.start_from names"):
        run(values, optim=start["optim"], run={"overwrite": True})
    write_jsonl(corpus / "train.jsonl", [*EXAMPLES, Example("sing", "song", ())])
    with pytest.raises(ConfigError, match="labels than data.train, so that sentence_head would"):
        run(values, **start, run={"overwrite": True})


def test_another_start_is_not_gone_on_with(
    values, corpus: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """Wherever the checkpoint stands, and whatever it is called."""
    for name, seed in (("a", 1), ("b", 2)):
        run(values, run={"output": str(corpus / name), "seed": seed})
    (corpus / "a").rename(corpus / "moved")

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("multitask_train.checkpoint.save", stop)
        with pytest.raises(StoppedError):
            run(values, model={"start_from": str(corpus / "moved")})
    with pytest.raises(ConfigError, match=r"content of model\.start_from 1: '\w+' there, '\w+'"):
        run(values, model={"start_from": str(corpus / "b")})
    (corpus / "moved").rename(corpus / "a")
    with caplog.at_level(logging.INFO):
        run(values, model={"start_from": str(corpus / "a")})
    assert "going on after update 1 of 1" in caplog.text


def test_a_run_without_progress_ends_after_its_patience(values, corpus: Path) -> None:
    still = {"epochs": 9, "learning_rate": 1e-12, "head_learning_rate": 1e-12}
    metrics = run(values, optim=still, run={"patience": 2})
    assert metrics["epoch"] == 1
    history = json.loads((corpus / "run" / "history.json").read_text())
    assert len(history["epochs"]) == 3


@pytest.mark.parametrize("strategy", ["freeze-classification", "freeze-ner"])
def test_a_frozen_head_stays_as_it_is(values, corpus: Path, strategy: str) -> None:
    """Calibration, which would act on these answers, included."""
    write_jsonl(corpus / "dev.jsonl", EXAMPLES * 10)
    run(values, run={"calibrate": False})
    found = run(
        values,
        model={"start_from": str(corpus / "run")},
        optim={**LEARN, "strategy": strategy},
        run={"output": str(corpus / "other")},
    )
    assert found["epoch"] > 0
    ours, theirs = (checkpoint.load(corpus / name)[0].state_dict() for name in ("run", "other"))
    task = strategy.removeprefix("freeze-")
    head = {"classification": "sentence_head", "ner": "token_head"}[task]
    for name in ours:
        assert torch.equal(ours[name], theirs[name]) is name.startswith(head), name
    assert found["temperatures"][task] == 1.0


def test_the_weights_are_those_of_the_best_epoch(values, corpus: Path) -> None:
    """At rates under which dev goes up and down, so that the best epoch is not the last one."""
    rates = {"learning_rate": 5e-2, "head_learning_rate": 5e-2, "warmup": 0.0}
    metrics = run(values, optim={"epochs": 12, **rates}, run={"calibrate": False})
    folder = corpus / "run"
    found = [one["dev"] for one in json.loads((folder / "history.json").read_text())["epochs"]]
    means = [(one["classification"]["accuracy"] + one["ner"]["f1"]) / 2 for one in found]
    best = means.index(max(means))
    assert means[-1] < max(means)
    assert metrics["epoch"] == best + 1
    served = evaluate_checkpoint(folder, EXAMPLES)
    for task, name in (("classification", "accuracy"), ("ner", "f1"), ("joint", "exact_match")):
        assert served[task][name] == metrics["dev"][task][name] == found[best][task][name]


def test_a_run_leaves_what_its_readme_lists(values, corpus: Path) -> None:
    run(values)
    left = {path.name for path in (corpus / "run").iterdir()}
    assert left >= {
        "README.md", "metrics.json", "history.json", "settings.yaml", "environment.json",
        "labels.json", "manifest.json", "samples.jsonl", "config.json", "model.safetensors",
        "tokenizer.json", "curves.png", "confusion.png", "entity_f1.png", "logs",
    }  # fmt: skip


def test_a_run_in_bf16_learns_with_weights_in_fp32(values, corpus: Path) -> None:
    rates = {"learning_rate": 2e-3, "head_learning_rate": 5e-3}
    run(values, optim={"precision": "bf16", "epochs": 25, **rates})
    history = json.loads((corpus / "run" / "history.json").read_text())["updates"]
    assert history[-1]["losses"]["ner"] < 0.5 * history[0]["losses"]["ner"]
    model, _ = checkpoint.load(corpus / "run")
    assert {one.dtype for one in model.parameters()} == {torch.float32}


def test_a_moving_average_is_what_the_checkpoint_holds(values, corpus: Path) -> None:
    """The first epoch of one update is the model's own; later ones trail behind it."""
    for epochs, same in ((1, True), (4, False)):
        found = []
        for decay in (0.0, 0.9):
            optim = {"epochs": epochs, "ema_decay": decay}
            run(values, optim=optim, run={"overwrite": True, "calibrate": False})
            found.append(checkpoint.load(corpus / "run")[0].token_head.output.weight)
        assert torch.equal(*found) is same
    assert "- moving average of the weights: 0.9" in (corpus / "run" / "README.md").read_text()


def test_a_teacher_shapes_a_run_and_belongs_to_it(values, corpus: Path, caplog) -> None:
    """Half of the sentences lose their entities; a teacher answers in their place."""
    run(values, optim={"epochs": 6}, run={"output": str(corpus / "tagger")}, data={"tasks": "ner"})
    half = [replace(one, entities=None) if at % 2 else one for at, one in enumerate(EXAMPLES)]
    write_jsonl(corpus / "train.jsonl", half)
    taught = {"loss": {"ner_teacher": str(corpus / "tagger")}}
    assert run(values, **taught)["teacher_seconds"] > 0
    assert run(values, run={"output": str(corpus / "alone")})["teacher_seconds"] == 0
    ours, theirs = (checkpoint.load(corpus / name)[0].state_dict() for name in ("run", "alone"))
    assert not torch.equal(ours["token_head.output.weight"], theirs["token_head.output.weight"])
    assert "- taught by: tagger (ner)" in (corpus / "run" / "README.md").read_text()

    write_jsonl(corpus / "train.jsonl", EXAMPLES)
    with caplog.at_level(logging.WARNING):
        run(values, **taught, run={"output": str(corpus / "full")})
    assert "loss.ner_teacher is never asked" in caplog.text


def test_one_head_alone_is_taught_where_its_labels_lack(values, corpus: Path, caplog) -> None:
    run(values, optim={"epochs": 6}, run={"output": str(corpus / "tagger")}, data={"tasks": "ner"})
    half = [replace(one, entities=None) if at % 2 else one for at, one in enumerate(EXAMPLES)]
    write_jsonl(corpus / "train.jsonl", half)
    loss = {"ner_teacher": str(corpus / "tagger")}
    with caplog.at_level(logging.INFO):
        run(values, loss=loss, data={"tasks": "ner"})
    assert "windows: {'ner': 6}" in caplog.text
    assert re.search(r"the teacher of ner: 0 answers beside labels, [1-9]\d* in", caplog.text)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        run(values, data={"tasks": "ner"}, run={"output": str(corpus / "untaught")})
    assert "windows: {'ner': 3}" in caplog.text


def test_a_teacher_may_read_with_another_tokenizer_and_windows(
    values, corpus: Path, tiny_encoder: Path, tmp_path: Path, caplog
) -> None:
    """Its pieces have other ids: what it says goes by words."""
    other = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    ids = sorted(vocabulary.values())
    plain = [word for word in vocabulary if not word.startswith("[")]
    turned = dict(zip(plain, [vocabulary[word] for word in reversed(plain)], strict=True))
    tokenizer["model"]["vocab"] = vocabulary | turned
    assert sorted(tokenizer["model"]["vocab"].values()) == ids
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    windows = {"encoder": str(other), "max_length": 8, "stride": 2}
    run(values, model=windows, optim={"epochs": 6}, run={"output": str(corpus / "teacher")})
    name = str(corpus / "teacher")
    both = {"ner_teacher": name, "classification_teacher": name, "teacher_share": 0.5}
    with caplog.at_level(logging.INFO):
        run(values, loss=both)
    assert "the teacher of classification: " in caplog.text
    assert re.search(r"the teacher of ner: [1-9]\d* answers beside labels, 0 in", caplog.text)
    assert "parts" not in caplog.text
    card = (corpus / "run" / "README.md").read_text()
    assert "- taught by: teacher (classification), teacher (ner)" in card
    assert "- share of the teacher beside labels: 0.5" in card


def test_of_several_teachers_the_mean_is_imitated(values, corpus: Path) -> None:
    """Twice the same says what one says; another one beside it says something else."""
    for seed, name in enumerate(("first", "second"), 1):
        run(values, run={"output": str(corpus / name), "seed": seed}, data={"tasks": "ner"})
    first, second = (str(corpus / name) for name in ("first", "second"))
    again = str(shutil.copytree(first, corpus / "again"))
    weights = {}
    for name, teachers in (
        ("one", first),
        ("same", [first, again]),
        ("two", [first, second]),
        ("turned", [second, first]),
    ):
        loss = {"ner_teacher": teachers, "teacher_share": 0.5}
        run(values, loss=loss, run={"output": str(corpus / name)})
        weights[name] = checkpoint.load(corpus / name)[0].token_head.output.weight
    torch.testing.assert_close(weights["same"], weights["one"], atol=2e-4, rtol=0)
    torch.testing.assert_close(weights["turned"], weights["two"], atol=2e-4, rtol=0)
    assert (weights["two"] - weights["one"]).abs().max() > 1e-3
    card = (corpus / "two" / "README.md").read_text()
    assert "- taught by: first (ner), second (ner)" in card


def test_a_teacher_that_cannot_teach_is_refused(values, corpus: Path) -> None:
    run(values, run={"output": str(corpus / "tagger")}, data={"tasks": "ner"})
    tagger = str(corpus / "tagger")
    with pytest.raises(ConfigError, match="data.tasks ner: it has no classification"):
        run(values, loss={"classification_teacher": tagger})
    with pytest.raises(ConfigError, match="data.tasks classification trains no ner"):
        run(values, loss={"ner_teacher": tagger}, data={"tasks": "classification"})
    with pytest.raises(ArtifactError, match="no manifest.json"):
        run(values, loss={"ner_teacher": str(corpus)})
    with pytest.raises(ConfigError, match=r"teacher_share 0.5 .* none is named; give loss.ner_t"):
        run(values, loss={"teacher_share": 0.5})
    strange = [Example("in bath", "music", (Span(3, 7, "town"),)), *EXAMPLES]
    write_jsonl(corpus / "train.jsonl", strange)
    with pytest.raises(ConfigError, match="town are not its own, none not the data's"):
        run(values, loss={"ner_teacher": tagger})
