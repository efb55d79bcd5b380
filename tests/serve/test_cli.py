"""Usage, and the errors that are found before a server is started."""

import subprocess
import sys

import pytest

from multitask_serve import cli


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "multitask_serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["start"],
        ["stop", "--repository", "x"],
        ["start", "--repository", "x", "--target", "gpu"],
        ["start", "--repository", "x", "--grpc-port", "many"],
        ["run", "--repository", "x"],
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m multitask_serve" in capsys.readouterr().err


def test_the_program_runs_and_help_says_which_line_is_for_programs():
    answer = run("start", "--help")
    assert answer.returncode == 0
    assert "the last line on stdout is one JSON object" in answer.stdout
    assert "MULTITASK_GRPC_URL" in run("run", "--help").stdout


def test_an_error_is_one_line_on_stderr_and_status_1(tmp_path):
    answer = run("start", "--repository", tmp_path / "none")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("no model repository at")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ready-timeout", "0"], "--ready-timeout must be above 0 s"),
        (["--server-env", "/nowhere"], "no server environment at /nowhere"),
    ],
)
def test_settings_are_checked_before_the_start(make_model, capsys, options, message):
    assert cli.main(["start", "--repository", str(make_model()), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_command_that_does_not_exist_costs_no_start(make_model, capsys):
    assert cli.main(["run", "--repository", str(make_model()), "--", "no-such-program"]) == 1
    assert "no program 'no-such-program' on PATH" in capsys.readouterr().err
