"""`accelerate launch`: the processes that it leaves out, the signals that it does not pass on."""

import os
import subprocess
import sys

import pytest

from multitask_core.errors import ConfigError
from multitask_train import launch


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would take this process's place, in the environment that accelerate launch makes."""
    found: list[list[str]] = []
    for name in launch._STARTED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(os, "execv", lambda path, command: found.append([path, *command[1:]]))
    return found


@pytest.mark.parametrize("words", [["--num_processes", "3"], ["--num-processes=3"]])
def test_the_missing_processes_are_started(monkeypatch, started, words) -> None:
    command = ["python", "accelerate", "launch", *words, "-m", "multitask_train", "fit"]
    monkeypatch.setattr(launch, "_parent_command", lambda: command)
    launch.start_missing_processes(["fit", "--config", "x.yaml"])
    (found,) = started
    assert found[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert found[-6:] == ["3", "-m", "multitask_train", "fit", "--config", "x.yaml"]


def test_an_unknown_number_is_an_error_with_the_way_out(monkeypatch, started) -> None:
    monkeypatch.setattr(launch, "_parent_command", lambda: ["sh"])
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node N"):
        launch.start_missing_processes(["fit"])


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_processes_that_are_all_there_go_on(monkeypatch, started, name) -> None:
    monkeypatch.setenv(name, "2")
    launch.start_missing_processes(["fit"])
    assert started == []


def test_a_single_process_goes_on(monkeypatch, started) -> None:
    monkeypatch.delenv("MASTER_ADDR")
    launch.start_missing_processes(["fit"])
    assert started == []


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("/venv/bin/python /venv/bin/accelerate launch -m multitask_train fit", True),
        ("python -m accelerate.commands.launch train.py", True),
        ("python -u -m torch.distributed.run --standalone -m multitask_train fit", True),
        ("python /venv/bin/torchrun --standalone -m multitask_train fit", True),
        ("-bash", False),
        ("sh -c accelerate launch -m multitask_train fit & exit", False),
        ("python -m multitask_train compare accelerate.yaml", False),
        ("", False),
    ],
)
def test_a_run_follows_launchers_alone(monkeypatch, command: str, found: bool) -> None:
    words = command.split(" ", 2) if command.startswith("sh") else command.split()
    monkeypatch.setattr(launch, "_parent_command", lambda: words)
    assert launch.is_launched() is found


def after_two_signals(launched: bool) -> str:
    """What a process of its own prints; pytest's workers do not run tests in their main thread."""
    code = f"""
import signal
from multitask_train import interrupt
interrupt.is_launched = lambda: {launched}
# A shell that runs the tests with & has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with interrupt.Interrupt() as stop:
        signal.raise_signal(signal.SIGTERM)
        print(stop.signal == signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        print("goes on")
except KeyboardInterrupt:
    print("stops at once")
"""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_launchers_second_signal_means_nothing() -> None:
    assert after_two_signals(launched=True) == "True\ngoes on\n"


def test_a_users_second_signal_stops_at_once() -> None:
    assert after_two_signals(launched=False) == "True\nstops at once\n"
