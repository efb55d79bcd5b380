"""Both sides of the training benchmark really train: the same, in this process and in workers."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.results import read_results
from multitask_benchmarks.training import launch, ours, peer
from multitask_benchmarks.training.check import CHECK_UPDATES, require_same
from multitask_benchmarks.training.jobs import GROUPED, OURS, SIDES, TRAINER, Job, Report
from multitask_benchmarks.training.launch import run_job
from multitask_benchmarks.training.measure import Subject
from multitask_benchmarks.training.prepare import Material, prepare, read_features
from multitask_benchmarks.training.worker import load_model
from multitask_core.errors import DataError, MultiTaskError
from multitask_train.data import Example, Span
from multitask_train.data.examples import write_jsonl
from tiny import SENTENCES

BATCH = 8


@pytest.fixture(autouse=True)
def _one_accelerator_a_test() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of very different lengths, so that their order decides how much is padding."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    genre = (Span(0, 1, "genre"),)
    labels = ("music", "alarm")
    write_jsonl(path, [
        Example(" ".join([sentence] * (1 + number % 5)), labels[number % 2], genre)
        for number, sentence in enumerate(SENTENCES * 6)
    ])  # fmt: skip
    return path


@pytest.fixture(scope="module")
def material(data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return prepare(
        tmp_path_factory.mktemp("material"),
        str(data),
        "train",
        encoder=str(tiny_encoder),
        sentences=30,
        batch_size=BATCH,
        max_length=64,
        seed=1,
    )


def make(side: str, material: Material, folder: Path, **changed) -> Job:
    values = {
        "features": str(material.features), "precision": "no", "batch_size": BATCH, "warmup": 1,
        "updates": -(-len(material.lengths) // BATCH), "threads": 1, "seed": 3,
    }  # fmt: skip
    return Job(
        side=side, model=str(material.model), folder=str(folder), pad_id=material.pad_id,
        **{**values, **changed},
    )  # fmt: skip


def train(job: Job) -> Report:
    """As the worker does, in this process."""
    side = ours if job.side == OURS else peer
    return side.run(job, load_model(job), read_features(Path(job.features)))


def test_all_sides_compute_the_same(material: Material, tmp_path: Path) -> None:
    reports = {}
    for side in SIDES:
        job = make(side, material, tmp_path, features=str(material.batch),
            warmup=0, updates=CHECK_UPDATES["no"], exact=True)  # fmt: skip
        reports[Subject(side, "no", 1)] = [train(job)]
        AcceleratorState._reset_state(reset_partial_state=True)
    found = require_same(reports)
    losses = reports[Subject(OURS, "no", 1)][0].losses
    assert len(losses) == CHECK_UPDATES["no"]
    assert losses[-1] < losses[0]
    assert found[1]["differences"]["gradient_norms"] < 1e-4


def test_another_loss_is_noticed(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side that would leave out a head, or scale its loss, is found by the check."""
    exact = {"features": str(material.batch), "warmup": 0, "updates": 2, "exact": True}
    right = train(make(TRAINER, material, tmp_path, **exact))
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = ours.make_settings
    monkeypatch.setattr(ours, "make_settings", lambda *words: settings(*words).model_copy(
        update={"loss": settings(*words).loss.model_copy(
            update={"balancer": "static", "ner": 0.5})}))  # fmt: skip
    wrong = train(make(OURS, material, tmp_path, **exact))
    with pytest.raises(MultiTaskError, match="do not compute the same"):
        require_same({Subject(TRAINER, "no", 1): [right], Subject(OURS, "no", 1): [wrong]})


def test_every_side_learns_from_one_epoch(material: Material, tmp_path: Path) -> None:
    padding = {}
    for side in SIDES:
        # No warm-up: the timed updates are the first epoch, every window once.
        # Small batches, since the Trainer groups within a quarter of the data.
        updates = -(-len(material.lengths) // 4)
        found = train(make(side, material, tmp_path, batch_size=4, warmup=0, updates=updates))
        AcceleratorState._reset_state(reset_partial_state=True)
        assert found.work.windows == len(material.lengths)
        assert found.work.tokens == sum(material.lengths)
        assert found.seconds > 0
        assert found.losses == []
        padding[side] = 1 - found.work.tokens / found.work.slots
    assert padding[TRAINER] > 2 * padding[OURS]
    assert padding[TRAINER] > 1.3 * padding[GROUPED]


def test_the_warm_up_runs_on_into_the_next_epoch(material: Material, tmp_path: Path) -> None:
    found = train(make(OURS, material, tmp_path, warmup=2))
    assert found.work.windows <= len(material.lengths) + BATCH


def test_the_check_batch_and_the_facts(material: Material) -> None:
    batch = read_features(material.batch)
    assert len(batch) == BATCH
    assert len({one.tagged for one in batch}) == 1
    assert material.facts["windows"] == len(read_features(material.features))
    assert material.facts["longest_tokens"] <= 64


def test_mixed_data_is_refused(data: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(data.read_text() + json.dumps({"text": "no entities", "label": "music"}))
    arguments = {"encoder": str(tiny_encoder), "sentences": 99, "max_length": 64, "seed": 1}
    with pytest.raises(DataError, match=r"several kinds \(\d+ joint, 1 classification\)"):
        prepare(tmp_path / "a", str(mixed), "train", batch_size=BATCH, **arguments)
    with pytest.raises(DataError, match="less than a batch of 999"):
        prepare(tmp_path / "b", str(data), "train", batch_size=999, **arguments)


def test_a_worker_that_fails_says_why(material: Material, tmp_path: Path) -> None:
    job = make(OURS, material, tmp_path, features=str(tmp_path / "missing.json"))
    with pytest.raises(MultiTaskError, match=r"(?s)ours, precision no, 1 .*missing\.json"):
        run_job(job, 1)


def test_a_worker_that_hangs_is_ended(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = [sys.executable, "-c", "import signal; print('waiting', flush=True); signal.pause()"]
    monkeypatch.setattr(launch, "command", lambda *_: hang)
    monkeypatch.setattr(launch, "LIMIT_S", 0.1)
    with pytest.raises(MultiTaskError, match="ours, precision no, 1 .* did not end within 0 s"):
        run_job(make(OURS, material, tmp_path), 1)


@pytest.mark.parametrize(
    ("visible", "processes", "seen"),
    [(None, 1, "0"), ("2,3", 1, "2"), ("", 1, ""), ("2,3", 2, "2,3"), (None, 2, "unset")],
)
def test_one_process_sees_one_gpu(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible, processes, seen
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    say = "import os, sys; sys.exit('<' + os.environ.get('CUDA_VISIBLE_DEVICES', 'unset') + '>')"
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", say])
    with pytest.raises(MultiTaskError, match=f"<{seen}>"):
        run_job(make(TRAINER, material, tmp_path), processes)


def test_processes_look_for_unused_parameters_where_there_are_some(
    material: Material, tmp_path: Path
) -> None:
    job = make(TRAINER, material, tmp_path)
    assert peer.make_arguments(job).ddp_find_unused_parameters is False
    assert peer.make_arguments(job, joint=False).ddp_find_unused_parameters is True


@pytest.mark.slow
def test_the_command(data: Path, tiny_encoder: Path, tmp_path: Path, capsys) -> None:
    """One and two processes, and two precisions, each in workers of their own."""
    given = ["--data", str(data), "--encoder", str(tiny_encoder), "--name", "Tiny"]
    short = ["--batch-size", "8", "--max-length", "64", "--warmup", "1", "--updates", "2"]
    short += ["--rounds", "1", "--precision", "no", "bf16", "--threads", "2"]
    assert main(["training", *given, *short, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    line = json.loads(out[-1])
    path = Path(line["file"])
    assert path.name.startswith("tiny_")
    record = read_results(path).scenarios["training"]
    assert len(record.measurements) == len(line["result"]) == 12
    assert {one.subject for one in record.measurements} == {"trainer", "trainer-grouped", "ours"}
    assert len(record.details["check"]) == 8
    windows = [one["rounds"][0]["work"]["windows"] for one in record.details["rounds"]]
    assert all(8 < count <= 16 for count in windows)  # the epoch's last batch is smaller
    assert str(tmp_path) not in path.read_text()
