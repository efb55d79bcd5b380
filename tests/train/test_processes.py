"""The processes of a run: what they are told, that they are alone, that they equal one."""

import os
import platform
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from multitask_core.errors import ConfigError
from multitask_core.labels import LabelSchema
from multitask_train.data.batches import UpdatePlan
from multitask_train.data.features import IGNORED, Feature
from multitask_train.loop import Learner
from multitask_train.losses import balanced_weights
from multitask_train.processes import held_output, make_accelerator
from multitask_train.settings import FitSettings
from tiny import random_model

SCHEMA = LabelSchema(("alarm", "music", "weather"), ("city", "genre", "time"))
# 13 windows of both kinds and 3 of one: the last updates leave a process fewer windows, or none.
JOINT = [
    Feature([2, *range(5, 8 + at % 5), 3], min(at % 4, 2),
            [IGNORED, *[(at + piece) % 7 for piece in range(3 + at % 5)], IGNORED])
    for at in range(13)
]  # fmt: skip
CLASSIFIED = [Feature([2, 9 + at, 3], at % 3, [IGNORED] * 3) for at in range(3)]
BALANCERS = ["equal", "famo", "pcgrad"]


def train(accelerator: Accelerator, encoder: Path, balancer: str, batch_size: int) -> Learner:
    """Two epochs with all that is shared between processes; the learner at their end."""
    values = {
        "loss": {"balancer": balancer, "class_weights": "balanced", "label_smoothing": 0.1},
        "optim": {"epochs": 2, "batch_size": batch_size, "accumulation": 2, "warmup": 0.0},
    }
    settings = FitSettings.model_validate(values)
    windows = JOINT + CLASSIFIED
    weights = balanced_weights(windows, len(SCHEMA.classes))
    plan = UpdatePlan(
        windows,
        settings,
        pad_id=0,
        processes=accelerator.num_processes,
        rank=accelerator.process_index,
        class_weights=weights,
    )
    model = random_model(encoder, SCHEMA, dropout=0.0)
    learner = Learner(accelerator, model, plan, settings, weights)
    for _ in learner.steps():
        pass
    return learner


def train_one_of_two(rank: int, folder: Path, encoder: Path) -> None:
    """What each process does: join the other, be refused a folder that is held, train, save."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    accelerator = make_accelerator("no")
    with pytest.raises(ConfigError, match="in use by another run of fit"):
        held_output(accelerator, folder / "held").__enter__()
    for balancer in BALANCERS:
        learner = train(accelerator, encoder, balancer, batch_size=2)
        save_file(learner.model.state_dict(), folder / f"{balancer}-{rank}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("two")
    with held_output(Accelerator(cpu=True), folder / "held"):
        torch.multiprocessing.spawn(train_one_of_two, (folder, tiny_encoder), nprocs=2)
    return folder


@pytest.mark.parametrize("balancer", BALANCERS)
def test_two_processes_equal_one(trained_by_two: Path, tiny_encoder: Path, balancer: str) -> None:
    expected = train(Accelerator(cpu=True), tiny_encoder, balancer, batch_size=4).model
    one, two = (load_file(trained_by_two / f"{balancer}-{rank}.safetensors") for rank in (0, 1))
    for name, value in expected.state_dict().items():
        assert torch.equal(one[name], two[name]), name
        if name.endswith("key.bias"):  # its gradient is nought but for rounding: Adam steps anyhow
            continue
        torch.testing.assert_close(one[name], value, atol=1e-5, rtol=1e-5)


def test_accumulation_is_not_left_to_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ConfigError, match=r"give --optim\.accumulation 4"):
        make_accelerator("no")
    monkeypatch.delenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    assert make_accelerator("no").gradient_accumulation_steps == 1


def test_two_precisions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ConfigError, match=r"give --optim\.precision bf16"):
        make_accelerator("no")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what the launcher says by itself
    assert make_accelerator("no").mixed_precision == "no"


def test_an_output_belongs_to_one_run(tmp_path: Path) -> None:
    output, accelerator = tmp_path / "runs" / "one", Accelerator(cpu=True)
    with (
        held_output(accelerator, output),
        pytest.raises(ConfigError, match=rf"in use by another run of fit, process {os.getpid()} "),
        held_output(accelerator, output),
    ):
        pass
    assert not output.exists()
    with held_output(accelerator, output), held_output(accelerator, tmp_path / "other"):
        pass


def test_validation_may_take_longer_than_nccl_waits() -> None:
    handler = make_accelerator("no").init_handler
    assert handler is not None
    assert handler.to_kwargs()["timeout"] >= timedelta(hours=6)


_ALLOCATE = """
import resource, torch
from multitask_train.processes import keep_freed_memory

def page_faults():
    for _ in range(6):  # the heap may grow some times more after the first one
        torch.ones(1 << 24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = page_faults()
keep_freed_memory()
print(given_back, page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_freed_memory_is_used_again() -> None:
    """In a process of its own: what the allocator is told cannot be taken back."""
    command = [sys.executable, "-c", _ALLOCATE]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    given_back, kept = map(int, found.split())
    assert 10 * kept < given_back
