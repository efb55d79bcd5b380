"""Runs that are killed, stopped, changed or spread over processes, as a user meets them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file

from multitask_core.errors import ArtifactError, ConfigError
from multitask_train.data import Example, Span
from multitask_train.data.examples import write_jsonl
from multitask_train.fit import fit as train
from multitask_train.processes import held_output
from multitask_train.resume import ResumeFolder
from multitask_train.settings import FitSettings

HASHES = {"data.train": "a", "data.dev": "b"}
LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch"]
FIT = [sys.executable, "-m", "multitask_train", "fit"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Settings of a run of 60 updates with dropout whose tasks come from two corpora."""
    folder = tmp_path_factory.mktemp("resume")
    genres = ("jazz", "rock", "folk", "soul")
    tagged = [
        Example(f"{form} {genre} {end}".strip(), None,
                (Span(len(form) + 1, len(form) + 5, "genre"),))
        for genre in genres for form in ("play", "some", "i want") for end in ("", "now", "please")
    ]  # fmt: skip
    classified = [Example(f"wake me at {hour}", "alarm") for hour in range(10)]
    classified += [Example(f"play {genre}", "music") for genre in genres]
    write_jsonl(folder / "tagged.jsonl", tagged)
    write_jsonl(folder / "classified.jsonl", classified)
    sources = [str(folder / "tagged.jsonl"), str(folder / "classified.jsonl")]
    values = {
        "model": {"encoder": str(tiny_encoder), "max_length": 32, "stride": 8},
        "data": {"train": sources, "dev": sources},
        "optim": {"epochs": 12, "batch_size": 8, "learning_rate": 1e-3, "ema_decay": 0.9},
        "loss": {"balancer": "uncertainty"},
        "run": {"threads": 1, "save_every": 2},
    }
    path = folder / "fit.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def fit(settings: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*FIT, "--config", str(settings), "--run.output", str(output), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(settings: Path) -> Path:
    """The run that nothing disturbed."""
    output = settings.parent / "whole"
    done = fit(settings, output)
    assert done.returncode == 0, done.stderr
    return output


# `fit`, killed where something that CODE has replaced is called; --run.output stands last.
KILLED = """
import os, pathlib, signal, sys, torch
from multitask_core import manifest
from multitask_train import fit
from multitask_train.__main__ import main

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def save_half(value, path):
    path.write_bytes(b"half")
    die()

def rename(source, target):
    die() if target == pathlib.Path(sys.argv[-1]) else os.replace(source, target)

CODE
sys.exit(main(sys.argv[1:]))
"""
PLACES = {
    "validation": "fit.evaluate = die",
    "the state half written": "torch.save = save_half",
    "the checkpoint half written": "manifest.write = die",
    "the folder moved aside, the checkpoint not yet in its place": "pathlib.Path.replace = rename",
}


def start_and_signal(
    settings: Path, output: Path, number: int, *words: str, start: Sequence[str] = FIT
) -> tuple[int, str]:
    """Start a run, send a signal once it has saved its state (anew); its status and errors.

    Waits for the end of all processes that the started one left, since they hold its stderr.
    """
    state = output / "state" / "state.pt"
    before = state.stat().st_mtime_ns if state.exists() else 0
    command = [*start, "--config", str(settings), "--run.output", str(output), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while process.poll() is None:
            if state.exists() and state.stat().st_mtime_ns > before:
                process.send_signal(number)
                break
            time.sleep(0.001)
        _, errors = process.communicate(timeout=200)
    return process.returncode, errors


def test_a_killed_run_ends_with_the_weights_of_one_never_killed(
    settings: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    status, errors = start_and_signal(settings, output, signal.SIGKILL)
    assert status == -signal.SIGKILL, errors
    words = ["fit", "--config", str(settings), "--run.output", str(output)]
    for place, code in PLACES.items():
        command = [sys.executable, "-c", KILLED.replace("CODE", code), *words]
        killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert killed.returncode == -signal.SIGKILL, (place, killed.stderr)
        assert not (output / "manifest.json").exists(), place
    assert not output.exists()
    done = fit(settings, output)
    assert done.returncode == 0, done.stderr
    assert "going on after update" in done.stderr
    assert not list(tmp_path.glob(".run.[on]*")), "what the killed ones left"
    assert weights(output) == weights(whole)
    assert not (output / "state").exists()
    kept, found = (json.loads((one / "history.json").read_text()) for one in (whole, output))
    assert found["updates"] == kept["updates"]
    assert [one["dev"] for one in found["epochs"]] == [one["dev"] for one in kept["epochs"]]


def test_a_run_stops_on_sigterm_and_goes_on(settings: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    status, errors = start_and_signal(settings, output, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM, errors
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    changed = fit(settings, output, "--optim.learning_rate", "1e-4")
    assert changed.returncode == 1
    assert "optim.learning_rate: 0.001 there, 0.0001 now" in changed.stderr
    done = fit(settings, output, "--run.license", "mit")
    assert done.returncode == 0, done.stderr
    assert weights(output) == weights(whole)


def test_overwrite_begins_anew_where_the_settings_changed(settings: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    status, errors = start_and_signal(settings, output, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM, errors
    done = fit(settings, output, "--optim.epochs", "1", "--run.overwrite", "true")
    assert done.returncode == 0, done.stderr
    assert "going on" not in done.stderr


def launch(count: int) -> list[str]:
    return [*LAUNCH, "--num_processes", str(count), "-m", "multitask_train", "fit"]


def fit_with_two(settings: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As `fit`, in two processes with one thread each; fails where they do."""
    command = [*launch(2), "--config", str(settings), "--run.output", str(output), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_stops_with_its_launcher(settings: Path, tmp_path: Path, count: int) -> None:
    output = tmp_path / "run"
    status, errors = start_and_signal(
        *(settings, output, signal.SIGTERM, "--optim.epochs", "500"), start=launch(count)
    )
    assert status == -signal.SIGTERM, errors
    assert "the same command goes on from there" in errors
    assert not (output / "manifest.json").exists()


def test_two_processes_go_on_where_they_stopped(settings: Path, tmp_path: Path) -> None:
    """With dropout: each process goes on with the random numbers that were its next ones."""
    output, undisturbed = tmp_path / "run", tmp_path / "whole"
    status, errors = start_and_signal(settings, output, signal.SIGTERM, start=launch(2))
    assert status == -signal.SIGTERM, errors
    assert "going on after update" in fit_with_two(settings, output).stderr
    fit_with_two(settings, undisturbed)
    assert weights(output) == weights(undisturbed)


def test_an_output_in_use_is_refused(tmp_path: Path) -> None:
    settings = FitSettings.model_validate({"run": {"output": str(tmp_path / "run")}})
    with (
        held_output(Accelerator(cpu=True), settings.run.output),
        pytest.raises(ConfigError, match=f"in use by another run of fit, process {os.getpid()} on"),
    ):
        train(settings)


@pytest.mark.parametrize("taught", [False, True])
def test_two_processes_equal_one_with_the_doubled_batch(
    settings: Path, whole: Path, tmp_path: Path, taught: bool
) -> None:
    """With teachers each process asks for half of their answers, and learns from all."""
    single, output = tmp_path / "one", tmp_path / "two"
    steady = ["--model.dropout", "0", "--optim.epochs", "2"]
    if taught:
        steady += ["--loss.ner_teacher", str(whole), "--loss.classification_teacher", str(whole)]
        steady += ["--loss.teacher_share", "0.5"]
    alone = fit(settings, single, *steady)
    assert alone.returncode == 0, alone.stderr
    done = fit_with_two(settings, output, "--optim.batch_size", "4", *steady)
    one, two = (load_file(folder / "model.safetensors") for folder in (single, output))
    for name, expected in one.items():
        if name.endswith("key.bias"):  # its gradient is nought but for rounding: Adam steps anyhow
            continue
        torch.testing.assert_close(two[name], expected, atol=2e-4, rtol=2e-3)
    assert len(done.stdout.strip().splitlines()) == 1  # one process speaks
    left, right = (json.loads((one / "history.json").read_text()) for one in (single, output))
    for ours, theirs in zip(right["updates"], left["updates"], strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
        assert ours["tokens"] == theirs["tokens"]


def make_folder(output: Path, **sections) -> ResumeFolder:
    settings = FitSettings.model_validate({"run": {"output": str(output)}, **sections})
    return ResumeFolder(settings, HASHES, 1)


def test_weights_belong_to_the_state_that_names_them(tmp_path: Path) -> None:
    folder, model = make_folder(tmp_path), torch.nn.Linear(2, 2)
    first = folder.save_best(model, 1)
    folder.save({"at": 1}, {"file": first})
    torch.nn.init.zeros_(model.weight)
    folder.save_best(model, 2)  # killed here: the state still names epoch 1
    assert folder.load()["best"] == {"file": first}
    assert folder.load_best(first)["weight"].abs().sum() > 0
    folder.save({"at": 2}, {"file": "best-2.safetensors"})
    assert [path.name for path in folder.folder.glob("best*")] == ["best-2.safetensors"]
    folder.discard()
    assert folder.load() is None


def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    folder.save({"at": 1}, {})
    with pytest.raises(ConfigError, match="processes: 1 there, 2 now"):
        ResumeFolder(
            FitSettings.model_validate({"run": {"output": str(tmp_path)}}), HASHES, 2
        ).load()
    with pytest.raises(ConfigError, match=r"content of data\.dev: 'b' there, 'c' now"):
        ResumeFolder(
            FitSettings.model_validate({"run": {"output": str(tmp_path)}}),
            {**HASHES, "data.dev": "c"},
            1,
        ).load()
    with pytest.raises(ConfigError, match=r"optim\.epochs: 5 there, 6 now"):
        make_folder(tmp_path, optim={"epochs": 6}).load()
    path = folder.folder / "state.pt"
    older = torch.load(path, weights_only=True)
    del older["identity"]["optim.ema_decay"]  # of a release that had no such setting
    torch.save(older, path)
    older["identity"]["model.start_from"] = ""  # known by its path, and there was none
    torch.save(older, path)
    assert folder.load() is not None
    with pytest.raises(ConfigError, match=r"optim\.ema_decay: 0\.0 there, 0\.9 now"):
        make_folder(tmp_path, optim={"ema_decay": 0.9}).load()
    torch.save({**older, "identity": {**older["identity"], "model.start_from": "runs/a"}}, path)
    with pytest.raises(ConfigError, match=r"model\.start_from: 'runs/a' there, None now"):
        folder.load()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ArtifactError, match="to begin anew"):
        folder.load()
