"""`accuracy`: from finished runs and comparisons to a scenario over the seeds."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import AcceleratorState

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.machine import hardware_slug
from multitask_benchmarks.results import ScenarioRecord, read_results
from multitask_core.config import parse
from multitask_core.files import write_json
from multitask_train.comparison import report, results
from multitask_train.comparison.cells import make_runs
from multitask_train.comparison.settings import load_comparison
from multitask_train.data import Example, Span
from multitask_train.data.examples import write_jsonl
from multitask_train.fit import fit
from multitask_train.settings import FitSettings

EXAMPLES = [
    *(Example(f"play {one}", "music", (Span(5, 9, "genre"),)) for one in ("jazz", "rock", "folk")),
    *(Example(f"wake me at {hour}", "alarm", ()) for hour in range(3)),
]


@pytest.fixture
def values(tmp_path: Path, tiny_encoder: Path) -> dict[str, dict[str, Any]]:
    """Settings of a run of one short epoch."""
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / "corpus" / f"{split}.jsonl", EXAMPLES)
    return {
        "model": {"encoder": str(tiny_encoder), "max_length": 32, "stride": 8},
        "data": {split: str(tmp_path / "corpus") for split in ("train", "dev", "test")},
        "optim": {"epochs": 1, "batch_size": 8},
    }


@pytest.fixture
def runs(tmp_path: Path, values: dict[str, dict[str, Any]]) -> list[Path]:
    """Two seeds of one run."""
    folders = [tmp_path / f"run-{seed}" for seed in (1, 2)]
    for seed, folder in enumerate(folders, start=1):
        given = {**values, "run": {"output": str(folder), "seed": seed}}
        fit(parse(FitSettings, given, "the test"))
    AcceleratorState._reset_state(reset_partial_state=True)
    return folders


def record(folder: Path, *runs: Path) -> ScenarioRecord:
    given = ["--runs", *map(str, runs), "--name", "tiny", "--output", str(folder)]
    assert main(["accuracy", *given]) == 0
    (path,) = folder.glob("*.json")
    assert str(folder.parent) not in path.read_text()
    return read_results(path).scenarios["accuracy"]


def test_seeds_of_a_run_become_rounds(runs: list[Path], tmp_path: Path, capsys) -> None:
    found = record(tmp_path / "results", *runs)
    (measured,) = found.measurements
    metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]
    accuracies = [one["test"]["classification"]["accuracy"] for one in metrics]
    assert measured.point == {"split": "test"}
    assert measured.metrics["accuracy"].rounds == pytest.approx(accuracies, rel=1e-5)
    assert found.details["settings"]["data.train"] == ["corpus"]
    assert [one["seed"] for one in found.details["runs"]] == [1, 2]
    assert found.machine["packages"]["torch"]
    assert {one["hardware"] for one in found.details["runs"]} == {hardware_slug(found.machine)}
    lines = capsys.readouterr().out.splitlines()
    mean = 50 * sum(accuracies)
    assert f"{mean:.2f} ± " in lines[2]
    assert json.loads(lines[-1])["seeds"] == 2


def test_runs_on_different_hardware_are_told(runs: list[Path], tmp_path: Path, caplog) -> None:
    path = runs[1] / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps({**environment, "gpus": ["NVIDIA L4, 570.1"]}))
    found = record(tmp_path / "results", *runs)
    assert [one["hardware"] for one in found.details["runs"]] == [
        hardware_slug(environment),
        "nvidia-l4",
    ]
    assert "others ran on nvidia-l4 (run-2)" in caplog.text


@pytest.mark.parametrize(("whose", "taught"), [("own", "ner-teacher"), ("all", "ner-teachers")])
def test_cells_of_a_comparison_become_subjects(
    values, tmp_path: Path, capsys, whose: str, taught: str
) -> None:
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(values))
    settings = {"base": str(tmp_path / "fit.yaml"), "strategies": ["full", "heads"],
        "balancers": ["equal"], "seeds": [1, 2], "teachers": "ner", "teacher_seeds": whose,
        "output": str(tmp_path / "compared")}  # fmt: skip
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(settings))
    comparison = load_comparison(tmp_path / "compare.yaml", [])
    planned = make_runs(comparison)
    for run in planned:
        figures = {"classification": {"accuracy": 0.9 + run.seed / 100}, "ner": None, "joint": None}
        write_json(run.checkpoint / "metrics.json", {"test": figures})
        results.harvest(run)
    report.write_report(report.make_report(comparison, planned, []))
    found = record(tmp_path / "results", tmp_path / "compared")
    names = ["classification-alone", "full+equal", f"full+equal+{taught}", "heads+equal",
        "ner-alone"]  # fmt: skip
    assert sorted(one.subject for one in found.measurements) == names
    assert found.baseline == "full+equal"
    assert found.details["summary"]["heads+equal"]["accuracy"]["mean"] == pytest.approx(0.915)
    assert "optim.strategy" not in found.details["settings"]
    assert "heads + equal" in capsys.readouterr().out


def test_other_runs_are_refused(runs: list[Path], tmp_path: Path, capsys) -> None:
    def fault(*folders: Path) -> str:
        given = ["--runs", *map(str, folders), "--output", str(tmp_path / "results")]
        assert main(["accuracy", *given]) == 1
        return capsys.readouterr().err

    assert "run-1: another run given has seed 1 too" in fault(runs[0], runs[0])
    assert "corpus is no finished run of `fit`" in fault(tmp_path / "corpus")
    path = runs[1] / "settings.yaml"
    path.write_text(path.read_text().replace("epochs: 1\n", "epochs: 7\n"))
    assert "run-1 has optim.epochs 1, run-2 7: " in fault(*runs)
    assert not (tmp_path / "results").exists()
