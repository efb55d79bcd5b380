"""scripts/run_all.sh against a `docker` that notes its calls and leaves the jobs' results."""

import os
import shutil
import subprocess

import pytest

DOCKER = r"""#!/usr/bin/env bash
echo "$*" >> "$LOG"
case "$*" in
    "compose version --short") echo "${COMPOSE_VERSION:-2.39.1}" ;;
    info) exit "${ENGINE_STATUS:-0}" ;;
    *" run --rm "*"train fit"*)
        mkdir -p "runs/$MULTITASK_NAME"
        [[ ${TRAIN_STATUS:-0} == 0 ]] || exit "$TRAIN_STATUS"
        echo "$RANDOM" > "runs/$MULTITASK_NAME/manifest.json" ;;
    *" run --rm export "*)
        mkdir -p "artifacts/$MULTITASK_NAME" "$MULTITASK_REPOSITORY/multitask/1"
        echo "$RANDOM" > "artifacts/$MULTITASK_NAME/manifest.json"
        cp "artifacts/$MULTITASK_NAME/manifest.json" "$MULTITASK_REPOSITORY/multitask/1/" ;;
    *" up "*) exit "${UP_STATUS:-0}" ;;
    *" client "*) echo '{"label": "x"}' ;;
esac
"""


@pytest.fixture
def checkout(root, tmp_path):
    """A checkout of the script alone, with the programs that it calls."""
    for path in ("scripts/run_all.sh", "compose.yaml", "train/configs/demo.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, tmp_path / path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("docker", DOCKER), ("nvidia-smi", "#!/bin/sh\nexit ${GPU_STATUS:-0}\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def run(checkout):
    """Run the script; its answer carries the calls to docker since the run before."""

    def run(*arguments, **environ):
        log = checkout / "log"
        log.write_text("")
        answer = subprocess.run(
            ["scripts/run_all.sh", *arguments],
            cwd=checkout,
            env={
                "PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "LOG": str(log),
                **environ,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        answer.calls = [
            line for line in log.read_text().splitlines() if line.startswith("compose -f")
        ]
        return answer

    return run


def verbs(answer):
    """The compose commands, with the service of a `run`."""
    known = ("build", "train", "export", "up", "client", "logs")
    return [next(word for word in call.split() if word in known) for call in answer.calls]


def test_the_whole_path_then_nothing_twice(run):
    first = run("--text", "where is my order?")
    assert first.returncode == 0, first.stderr
    assert verbs(first) == ["build", "train", "export", "up", "client"]
    assert first.stdout == '{"label": "x"}\n'
    assert first.calls[-1].endswith("client where is my order?")
    assert "--force-recreate" in first.calls[3]
    assert first.calls[3].endswith("triton prometheus probe grafana")

    second = run()
    assert verbs(second) == ["build", "up", "client"]
    assert "--force-recreate" not in second.calls[1]
    assert second.stderr.count("skipped") == 2


def test_force_and_a_newer_checkpoint_are_exported_anew(run, checkout):
    run()
    assert verbs(run("--force")) == ["build", "train", "export", "up", "client"]
    before = (checkout / "runs/demo/manifest.json").stat().st_mtime - 10
    os.utime(checkout / "artifacts/demo/manifest.json", (before, before))
    assert verbs(run()) == ["build", "export", "up", "client"]


def test_another_model_takes_the_place_in_the_repository(run):
    run()
    assert verbs(run("--name", "other")) == ["build", "train", "export", "up", "client"]
    # The first one's checkpoint is still there; the repository holds the other.
    assert verbs(run()) == ["build", "export", "up", "client"]


def test_published_versions_are_not_exported_over(run, checkout):
    run()
    (checkout / "triton_models/history.jsonl").write_text("{}")
    assert verbs(run()) == ["build", "up", "client"]
    for words in (["--force"], ["--name", "other"]):
        refused = run(*words)
        assert (refused.returncode, refused.calls) == (1, [])
        assert "docker compose run --rm publish artifacts/NAME" in refused.stderr


def test_a_failed_stage_stops_and_is_taken_up_again(run):
    failed = run(TRAIN_STATUS="3")
    assert failed.returncode == 3
    assert verbs(failed) == ["build", "train"]
    assert "error: train failed" in failed.stderr
    assert verbs(run()) == ["build", "train", "export", "up", "client"]


def test_a_server_that_does_not_come_up_shows_its_log(run):
    failed = run(UP_STATUS="1")
    assert failed.returncode == 1
    assert verbs(failed) == ["build", "train", "export", "up", "logs"]
    assert "did not become ready" in failed.stderr


def test_without_a_gpu(run):
    refused = run(GPU_STATUS="9")
    assert refused.returncode == 1
    assert "--cpu" in refused.stderr
    assert refused.calls == []
    answer = run("--cpu", GPU_STATUS="9")
    assert answer.returncode == 0, answer.stderr
    assert all(
        call.startswith("compose -f compose.yaml -f compose.cpu.yaml ") for call in answer.calls
    )
    assert "target cpu" in answer.stderr


def test_training_options_and_settings_reach_the_job(run, checkout):
    own = checkout / "my settings.yaml"
    own.write_text("{}")
    answer = run("--config", str(own), "--no-monitoring", "--", "--optim.epochs", "8")
    train = answer.calls[1]
    assert f"--volume {own}:/app/config.yaml:ro train fit --config config.yaml" in train
    assert train.endswith("--run.output runs/demo --run.overwrite true --optim.epochs 8")
    assert answer.calls[3].endswith(" triton")


@pytest.mark.parametrize(
    ("environ", "said"),
    [({"COMPOSE_VERSION": "2.9.0"}, "2.24 or newer"), ({"ENGINE_STATUS": "1"}, "docker info")],
)
def test_what_is_missing_is_said_before_anything_starts(run, environ, said):
    answer = run(**environ)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert answer.calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["demo"],
        ["--name"],
        ["--name", "../up"],
        ["--target", "embedded"],
        ["--cpu", "--target", "cuda"],
        ["--config", "none.yaml"],
        ["--text", ""],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_refused(run, arguments):
    answer = run(*arguments)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert answer.calls == []


def test_help_names_every_option(run, root):
    answer = run("--help")
    assert answer.returncode == 0
    text = (root / "scripts/run_all.sh").read_text(encoding="utf-8")
    cases = text[text.index("case $1 in") : text.index("esac")]
    options = {
        word for word in cases.replace("|", " ").replace(")", " ").split() if word[:2] == "--"
    }
    assert len(options) >= 8
    assert all(option in answer.stdout for option in options - {"--"})
