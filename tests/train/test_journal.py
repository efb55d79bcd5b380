"""What a run tells of itself."""

import json
import logging
import math
import re
import time
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from multitask_train.journal import POINTS, Journal, stalled, starved
from multitask_train.loop import Step
from multitask_train.losses import least_loss
from multitask_train.settings import FitSettings


def epoch(number: int, losses: tuple[float, float], scores: tuple[float, float]) -> dict:
    return {
        "epoch": number,
        "losses": {"classification": losses[0], "ner": losses[1]},
        "dev": {"classification": {"accuracy": scores[0]}, "ner": {"f1": scores[1]}},
    }


@pytest.mark.parametrize(
    ("losses", "scores", "names"),
    [
        (((2.0, 1.0), (1.0, 0.995)), ((0.5, 0.3), (0.7, 0.3)), ["ner"]),
        (((2.0, 1.0), (2.1, 1.2)), ((0.5, 0.3), (0.5, 0.2)), ["classification", "ner"]),
        (((2.0, 1.0), (1.0, 0.995)), ((0.5, 0.3), (0.7, 0.4)), []),  # its metric rose
        (((0.04, 0.01), (0.04, 0.01)), ((0.9, 0.9), (0.9, 0.9)), []),  # nothing left to learn
    ],
)
def test_a_task_that_stalls_is_named(losses, scores, names) -> None:
    epochs = [epoch(at, *both) for at, both in enumerate(zip(losses, scores, strict=True), 1)]
    assert [warning.split()[0] for warning in stalled(epochs)] == names
    assert stalled(epochs[:1]) == []


def test_a_task_at_its_least_loss_does_not_stall() -> None:
    least = {"ner": least_loss(0.1, 79)}
    epochs = [epoch(at, (0.01, least["ner"] + 0.04), (1.0, 0.9)) for at in (1, 2)]
    assert stalled(epochs, least) == []
    assert [one.split()[0] for one in stalled(epochs)] == ["ner"]
    perfect = [epoch(at, (0.01, 1.0), (1.0, 1.0)) for at in (1, 2)]
    assert stalled(perfect) == []


def test_a_task_that_a_balancer_starves_is_named() -> None:
    found = {"epoch": 3, "losses": {"classification": 0.01, "ner": 1.9}}
    starving = {**found, "weights": {"classification": 1.96, "ner": 0.04}}
    (warning,) = starved(starving, {}, "famo")
    assert "ner starves: loss.balancer famo gave it 2.0% of the weight in epoch 3" in warning
    assert starved(starving, {"ner": 1.9}, "famo") == []  # nothing left to learn
    assert starved({**found, "weights": {"classification": 1.7, "ner": 0.3}}, {}, "famo") == []


@pytest.mark.parametrize(("balancer", "told"), [("uncertainty", True), ("static", False)])
def test_weights_that_were_chosen_starve_nobody(balancer, told, tmp_path, caplog) -> None:
    label = {"accuracy": 0.5, "macro_f1": 0.5}
    dev = {"classification": label, "ner": None, "joint": None, "examples": 3}
    both = {"classification": 1.0, "ner": 2.0}
    values = {"run": {"output": str(tmp_path)}, "loss": {"balancer": balancer}}
    with Journal(FitSettings.model_validate(values), 1, 0, None) as journal:
        one = Step(1, 1, both, {"classification": 0.05, "ner": 1.95}, 1e-4, 1.0, 100)
        journal.step(one)
        journal.validated(one.epoch, one.number, dev, 1.0)
    assert journal.history["epochs"][0]["weights"] == {"classification": 0.05, "ner": 1.95}
    assert ("classification starves" in caplog.text) is told


def test_least_loss_is_what_a_perfect_answer_costs() -> None:
    assert least_loss(0.0, 5) == 0
    wanted = torch.full((1, 5), 0.02)
    wanted[0, 2] += 0.9
    expected = torch.nn.functional.cross_entropy(
        wanted.log(), torch.tensor([2]), label_smoothing=0.1
    )
    assert least_loss(0.1, 5) == pytest.approx(float(expected))


def test_an_epoch_that_was_interrupted_has_the_mean_of_all_its_updates(tmp_path) -> None:
    dev = {
        "classification": {"accuracy": 0.5, "macro_f1": 0.4},
        "ner": None,
        "joint": None,
        "examples": 3,
    }

    def means(cut: int) -> dict[str, float]:
        with Journal(settings(tmp_path, 1), 5, 0, None) as journal:
            for number in range(1, cut + 1):
                journal.step(step(number, 5))
        with Journal(settings(tmp_path, 1), 5, cut, journal.state) as again:
            for number in range(cut + 1, 6):
                again.step(step(number, 5))
            again.validated(1, 5, dev, 1.0)
        assert set(again.history) == {"updates", "epochs"}
        return again.history["epochs"][0]["losses"]

    assert means(3) == pytest.approx(means(0))


def step(number: int, updates: int) -> Step:
    both = {"classification": 1 / number, "ner": 2 / number}
    weights = {"classification": 1.5, "ner": 0.5}
    return Step(number, (number - 1) // updates + 1, both, weights, 1e-4, 1.0, 100)


def settings(output, epochs: int) -> FitSettings:
    return FitSettings.model_validate({"run": {"output": str(output)}, "optim": {"epochs": epochs}})


def test_each_task_has_its_own_curve(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    dev = {
        "classification": {"accuracy": 0.5, "macro_f1": 0.4},
        "ner": None,
        "joint": None,
        "examples": 3,
    }
    with Journal(settings(tmp_path, 2), 5, 0, None) as journal:
        for number in range(1, 6):
            journal.step(step(number, 5))
        journal.validated(1, 5, dev, 12.34)
    assert [one["update"] for one in journal.history["updates"]] == [1, 2, 3, 4, 5]
    assert journal.history["epochs"][0]["seconds"] == 12.3
    with caplog.at_level(logging.ERROR, logger="tensorboard"):
        events = EventAccumulator(str(tmp_path / "logs"))
        events.Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {"train/loss/classification", "train/loss/ner", "train/weight/ner"}
    assert tags >= {"train/learning_rate", "train/gradient_norm", "dev/classification/accuracy"}
    assert [one.value for one in events.Scalars("train/weight/ner")] == [0.5] * 5


def test_a_norm_that_overflowed_leaves_json_that_all_can_read(tmp_path) -> None:
    with Journal(settings(tmp_path, 2), 5, 0, None, disable=True) as journal:
        journal.step(replace(step(1, 5), gradient_norm=math.inf))
        journal.step(step(2, 5))
    norms = [one["gradient_norm"] for one in journal.history["updates"]]
    assert (norms[0], norms[1] is None) == (None, False)
    json.dumps(journal.history, allow_nan=False)


def test_the_progress_line_says_how_it_goes(tmp_path, capsys) -> None:
    with Journal(settings(tmp_path, 2), 5, 0, None) as journal:
        for number in range(1, 4):
            journal.step(step(number, 5))
        journal._bar.refresh()
    line = capsys.readouterr().err.rpartition("\r")[2]
    assert "epoch 1/2" in line
    assert "3/10" in line
    assert all(name in line for name in ("loss classification=", "loss ner=", "rate=", "tokens/s="))
    assert re.search(r"\[\d+:\d+<\d+:\d+", line), "elapsed and left"


def test_a_resumed_log_replaces_what_came_after_the_state(tmp_path) -> None:
    with Journal(settings(tmp_path, 2), 5, 0, None) as journal:
        for number in range(1, 5):
            journal.step(step(number, 5))
    with Journal(settings(tmp_path, 2), 5, 2, {"updates": [], "epochs": []}) as again:
        for number in range(3, 6):
            again.step(step(number, 5))
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [one.step for one in events.Scalars("train/loss/ner")] == [1, 2, 3, 4, 5]


def test_a_log_that_begins_anew_hides_the_one_before(tmp_path, monkeypatch) -> None:
    """A run that was killed before it saved, or is overwritten, would show two curves in one."""
    now = time.time()
    for later, last in enumerate((4, 2)):
        # Logs are read in the order of their names, which tell the second.
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        with Journal(settings(tmp_path, 2), 5, 0, None) as journal:
            dev = {"classification": {"accuracy": 0.1 * last}, "ner": None, "joint": None}
            with monkeypatch.context() as patch:
                patch.setattr("multitask_train.journal.describe", str)
                journal.validated(0, 0, dev, 0.0)
            for number in range(1, last + 1):
                journal.step(step(number, 5))
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [one.step for one in events.Scalars("train/loss/ner")] == [1, 2]
    (start,) = events.Scalars("dev/classification/accuracy")
    assert (start.step, start.value) == (0, pytest.approx(0.2))


def test_a_long_run_keeps_a_share_of_its_points(tmp_path) -> None:
    with Journal(settings(tmp_path, 3), POINTS, 0, None, disable=True) as journal:
        for number in range(1, 31):
            journal.step(step(number, POINTS))
    assert [one["update"] for one in journal.history["updates"]] == list(range(3, 31, 3))
    assert not (tmp_path / "logs").exists()
