"""Model repositories of a few lines, and a look at which processes are left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multitask_core import artifact, manifest
from multitask_core.labels import LabelSchema

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input [{{ name: "TEXT" data_type: TYPE_STRING dims: [1] }}]
output [{{ name: "ECHO" data_type: TYPE_STRING dims: [1] }}]
instance_group [{{ kind: KIND_CPU }}]
"""

MODEL = """
import triton_python_backend_utils as pb_utils
import helper


class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        {execute}
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("ECHO", pb_utils.get_input_tensor_by_name(r, "TEXT").as_numpy())]
            )
            for r in requests
        ]
"""

MakeModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs and links of the tests stay out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "multitask-transformer"


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write one model into the test's repository; return the repository."""

    def make(name: str = "echo", initialize: str = "pass", execute: str = "pass") -> Path:
        model = tmp_path / "repository" / name
        (model / "1").mkdir(parents=True)
        (model / "configs").mkdir()
        (model / "configs" / "embedded.pbtxt").write_text(CONFIG.format(name=name))
        code = MODEL.format(initialize=initialize, execute=execute)
        (model / "1" / "model.py").write_text(code)
        (model / "1" / "helper.py").write_text("")
        return tmp_path / "repository"

    return make


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[], list[str]]:
    """List the running processes that were started for this test, by its folder's name."""

    def running() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(tmp_path) in command:
                found.append(command)
        return found

    return running


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool], float], None]:
    """Wait for a condition; fail when it has not come in time."""

    def wait(condition: Callable[[], bool], timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "waited in vain"
            time.sleep(0.05)

    return wait


MakeArtifact = Callable[..., Path]


@pytest.fixture
def make_artifact(tiny_artifact: Path, tmp_path: Path) -> MakeArtifact:
    """A copy of the tiny artifact under other class names, and so with other answers."""

    def make(name: str = "other", classes: tuple[str, ...] | None = None, **config: object) -> Path:
        folder = tmp_path / "artifacts" / name
        shutil.copytree(tiny_artifact, folder)
        record = manifest.read(folder, artifact.KIND)
        schema = LabelSchema.load(folder / artifact.LABELS)
        LabelSchema(classes or schema.classes, schema.entity_types).save(folder / artifact.LABELS)
        manifest.write(
            folder,
            artifact.KIND,
            files=[folder / one for one in record.files],
            parent=f"checkpoint of {name}",
            config={**record.config, **config},
        )
        return folder

    return make
