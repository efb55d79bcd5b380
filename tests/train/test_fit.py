"""`python -m multitask_train`, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from multitask_core.config import load
from multitask_train import checkpoint
from multitask_train.data import Example, Span
from multitask_train.data.examples import write_jsonl
from multitask_train.settings import FitSettings

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
FIT_CONFIGS = sorted(set(CONFIGS.glob("*.yaml")) - set(CONFIGS.glob("compare-*.yaml")))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multitask_train", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    examples = []
    for genre in ("jazz", "rock", "folk", "soul"):
        for form in ("play {} now", "some {} please", "i want {}"):
            text = form.format(genre)
            start = text.index(genre)
            examples.append(Example(text, "music", (Span(start, start + 4, "genre"),)))
    examples += [Example(f"wake me at {hour}", "alarm", ()) for hour in range(1, 10)]
    for split in ("train", "dev", "test"):
        write_jsonl(folder / f"{split}.jsonl", examples)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    path = folder / "fit.yaml"
    values = {
        "model": {"encoder": str(tiny_encoder), "max_length": 32, "stride": 8, "dropout": 0.0},
        "data": {split: [str(corpus)] for split in ("train", "dev", "test")},
        "optim": {"epochs": 30, "batch_size": 8, "learning_rate": 2e-3, "head_learning_rate": 5e-3},
        "run": {"output": str(folder / "run"), "threads": 1},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def trained(settings: Path) -> subprocess.CompletedProcess[str]:
    done = run("fit", "--config", str(settings))
    assert done.returncode == 0, done.stderr
    return done


def test_it_learns_and_reports(trained, settings: Path) -> None:
    metrics = json.loads(trained.stdout.splitlines()[-1])
    assert metrics["test"]["classification"]["accuracy"] == 1
    assert metrics["test"]["ner"]["f1"] > 0.9
    assert "loss ner" in trained.stderr
    folder = settings.parent / "run"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "labels.json", "README.md"):
        assert (folder / name).is_file()
    assert list((folder / "logs").iterdir())
    assert "| test (21) | 100.00 |" in (folder / "README.md").read_text()


def test_evaluate_ends_with_json(trained, settings: Path, corpus: Path) -> None:
    done = run("evaluate", "--checkpoint", str(settings.parent / "run"), "--data", str(corpus))
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert set(metrics) == {"classification", "ner", "joint", "examples"}
    assert set(metrics["ner"]) >= {"f1", "token_accuracy"}
    assert metrics == json.loads(trained.stdout.splitlines()[-1])["test"]


def test_two_runs_give_the_same_weights(trained, settings: Path) -> None:
    other = settings.parent / "again"
    done = run("fit", "--config", str(settings), "--run.output", str(other))
    assert done.returncode == 0, done.stderr
    first = settings.parent / "run" / "model.safetensors"
    assert first.read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_checkpoint_is_not_overwritten_unasked(trained, settings: Path) -> None:
    done = run("fit", "--config", str(settings))
    assert done.returncode == 1
    assert "already holds a checkpoint" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.learning_rat", "1"], "did you mean 'learning_rate'?"),
        (["--model.max_length", "512"], "the encoder cannot read so many pieces (it has 64"),
        (["--data.train", "[nowhere.jsonl]"], "there is no nowhere.jsonl"),
        (["--data.train", "nowhere.jsonl"], "there is no nowhere.jsonl"),
        (["--optim.precision", "fp16"], "optim.precision fp16 needs a GPU"),
        (["--run.seed", "-1"], "run.seed: "),
    ],
)
def test_faults_are_one_clear_line(
    settings: Path, tmp_path, words: list[str], message: str
) -> None:
    words = ["--run.output", str(tmp_path / "x"), *words]
    done = run("fit", "--config", str(settings), *words, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x" / "manifest.json").exists()


@pytest.mark.parametrize("path", FIT_CONFIGS, ids=lambda path: path.name)
def test_shipped_settings_are_valid(path: Path) -> None:
    assert load(FitSettings, path).data.train


def test_samples_travel_with_the_checkpoint(trained, settings: Path) -> None:
    lines = (settings.parent / "run" / checkpoint.SAMPLES).read_text().splitlines()
    assert len(lines) == 21


def test_help_names_every_section() -> None:
    done = run("fit", "--help")
    for section in ("model", "data", "optim", "loss", "run"):
        assert f"--{section}." in done.stdout
