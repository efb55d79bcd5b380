"""`python -m multitask_core predict`, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from multitask_core.errors import ArtifactError
from multitask_core.pipeline import Pipeline


def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "multitask_core", "predict", *words]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=120)


def test_texts_as_arguments(tiny_artifact: Path) -> None:
    done = run("--artifact", str(tiny_artifact), "play jazz in Paris", "wake me")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert list(first) == ["text", "label", "score", "entities"]
    assert second["text"] == "wake me"


def test_a_bad_line_on_standard_input_fails_alone(tiny_artifact: Path) -> None:
    done = run("--artifact", str(tiny_artifact), stdin=b"one\n\ncaf" + b"\xe9\nZo\xc3\xab\n")
    assert done.returncode == 1
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["one", "Zoë"]
    assert b"line 2: the text is empty" in done.stderr
    assert b"line 3: not UTF-8" in done.stderr


def test_a_tampered_artifact_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_artifact, copy)
    labels = copy / "labels.json"
    labels.write_text(labels.read_text().replace("alarm", "alarn"))
    done = run("--artifact", str(copy), "hello")
    assert done.returncode == 1
    assert b"labels.json has SHA-256" in done.stderr
    assert b"Traceback" not in done.stderr


def test_unknown_variant_and_device(tiny_artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="no variant 'fp8'; it has fp16, fp16-fused, fp32"):
        Pipeline.from_artifact(tiny_artifact, variant="fp8")
    with pytest.raises(Exception, match="device 'tpu' is unknown"):
        Pipeline.from_artifact(tiny_artifact, device="tpu")
