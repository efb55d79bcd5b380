"""Record what training runs reached: mean and standard deviation over their seeds.

python -m multitask_benchmarks accuracy --runs runs/snips-1 runs/snips-2 runs/snips-3
python -m multitask_benchmarks accuracy --runs runs/compare-snips --as strategies
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from multitask_benchmarks.machine import hardware_slug
from multitask_benchmarks.recording import (
    add_result_arguments,
    make_record,
    scenario_name,
    write_record,
)
from multitask_benchmarks.results import Measured, Metric
from multitask_core.errors import DataError

_COMPARISON = "comparison.json"
# Settings in which the runs of a cell may differ.
_OF_ONE_RUN = ("seed", "output", "overwrite")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run. settings: without its seed, and with file names in place of paths."""

    folder: str
    settings: dict[str, Any]
    seed: int
    environment: dict[str, Any]
    metrics: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `accuracy`."""
    add = parser.add_argument
    add("--runs", type=Path, nargs="+", required=True, metavar="DIR",
        help="folders of `fit`, alike but for their seeds, or of `compare`")  # fmt: skip
    add_result_arguments(parser)


def execute(options: argparse.Namespace) -> int:
    """Write the record and print the table; returns the exit status."""
    from multitask_train.comparison import stats  # loads torch, which --help does without
    from multitask_train.comparison.cells import JOINT
    from multitask_train.comparison.report import format_table
    from multitask_train.comparison.results import without_types

    runs = [run for folder in options.runs for run in read_runs(folder)]
    check(runs)
    split = "test" if all("test" in run.metrics for run in runs) else "dev"
    results = _by_cell(runs)
    table = stats.tabulate(results, split)
    seeds = len({run.seed for run in runs})
    details = {
        "settings": _shared(runs),
        "summary": stats.as_json(table),
        "runs": [
            {
                "folder": run.folder,
                "cell": _cell(run).name,
                "seed": run.seed,
                "commit": (run.environment.get("git") or {}).get("commit", ""),
                "hardware": hardware_slug(run.environment),
                "metrics": without_types(run.metrics),
            }
            for run in runs
        ],
    }
    measurements = [
        Measured(cell.name, {"split": split}, _metrics(of_seeds, split))
        for cell, of_seeds in results.items()
    ]
    _tell_hardware(runs)
    record = replace(
        make_record(options, measurements=measurements, details=details),
        machine=runs[0].environment,
        baseline=JOINT.name if len(results) > 1 else "",
    )
    path = write_record(options, record)
    print(format_table(table, seeds))
    line = {"scenario": scenario_name(options), "file": str(path), "split": split, "seeds": seeds}
    print(json.dumps(line))
    return 0


def read_runs(folder: Path) -> Iterator[TrainedRun]:
    """The run of a folder, or the runs of a comparison; raises DataError for anything else."""
    try:
        if (folder / _COMPARISON).is_file():
            yield from _of_comparison(folder)
        else:
            settings = yaml.safe_load((folder / "settings.yaml").read_text("utf-8"))
            metrics, environment = (
                json.loads((folder / name).read_text("utf-8"))
                for name in ("metrics.json", "environment.json")
            )
            yield _run(folder, settings, metrics, environment)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DataError(
            f"{folder} is no finished run of `fit` (metrics.json, settings.yaml, environment.json) "
            f"or of `compare` ({_COMPARISON}): {error}"
        ) from error


def check(runs: Sequence[TrainedRun]) -> None:
    """Raise DataError for runs that are no seeds of one another, or for a seed twice."""
    first: dict[Any, TrainedRun] = {}
    seeds: set[Any] = set()
    for run in runs:
        cell = _cell(run)
        one, other = dict(_flat(first.setdefault(cell, run).settings)), dict(_flat(run.settings))
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                raise DataError(
                    f"{first[cell].folder} has {name} {one.get(name)}, {run.folder} "
                    f"{other.get(name)}: runs that differ in more than their seeds are recorded "
                    "apart, each with an --as of its own"
                )
        if (cell, run.seed) in seeds:
            raise DataError(f"{run.folder}: another run given has seed {run.seed} too")
        seeds.add((cell, run.seed))


def _tell_hardware(runs: Sequence[TrainedRun]) -> None:
    """Warn of runs on different machines: seconds are no seeds of one another then."""
    found = {hardware_slug(run.environment): run.folder for run in reversed(runs)}
    if len(found) > 1:
        first = hardware_slug(runs[0].environment)
        others = ", ".join(f"{name} ({folder})" for name, folder in found.items() if name != first)
        log.warning(
            "runs were made on different hardware: the result is filed under %s, others ran on %s; "
            "each run's hardware is in the file, and training times cannot be compared",
            first, others,
        )  # fmt: skip


def _of_comparison(folder: Path) -> Iterator[TrainedRun]:
    value = json.loads((folder / _COMPARISON).read_text("utf-8"))
    for one in value["runs"]:
        fit = json.loads(json.dumps(value["fit"]))
        fit["data"]["tasks"] = one["tasks"]
        fit["optim"]["strategy"] = one["strategy"]
        fit["loss"]["balancer"] = one["balancer"]
        teachers = one.get("teachers", {})
        fit["loss"] |= {f"{task}_teacher": names for task, names in teachers.items()}
        fit["run"] |= {"seed": one["seed"], "threads": value["settings"]["threads"]}
        yield _run(folder, fit, one["metrics"], value["environment"])


def _run(
    folder: Path, settings: dict[str, Any], metrics: dict[str, Any], environment: dict[str, Any]
) -> TrainedRun:
    run = {key: one for key, one in settings["run"].items() if key not in _OF_ONE_RUN}
    shared = {
        group: {key: _named(value) for key, value in values.items()}
        for group, values in {**settings, "run": run}.items()
    }
    seed = int(settings["run"]["seed"])
    return TrainedRun(folder.resolve().name, shared, seed, environment, metrics)


def _named(value: Any) -> Any:  # noqa: ANN401  any setting
    """A setting without its folders, which are the machine's own business."""
    if isinstance(value, list):
        return [_named(one) for one in value]
    if not isinstance(value, str) or not (Path(value).is_absolute() or Path(value).exists()):
        return value
    return PurePath(value).name


def _cell(run: TrainedRun) -> Any:  # noqa: ANN401  Cell, whose module loads torch
    from multitask_train.comparison.cells import SINGLE, Cell

    settings = run.settings
    strategy, loss = settings["optim"]["strategy"], settings["loss"]
    teachers = {task: names for task in SINGLE if (names := loss.get(f"{task}_teacher"))}
    ensemble = any(len(names) > 1 for names in teachers.values() if isinstance(names, list))
    return Cell(strategy, loss["balancer"], settings["data"]["tasks"], tuple(teachers), ensemble)


def _by_cell(runs: Sequence[TrainedRun]) -> dict[Any, dict[int, dict[str, Any]]]:
    found: dict[Any, dict[int, dict[str, Any]]] = {}
    for run in runs:
        found.setdefault(_cell(run), {})[run.seed] = run.metrics
    return found


def _metrics(of_seeds: Mapping[int, Mapping[str, Any]], split: str) -> dict[str, Metric]:
    """Each figure that all seeds have, a seed a round."""
    from multitask_train.comparison.stats import COLUMNS

    found: dict[str, Metric] = {}
    for column in COLUMNS:
        values = [column.read(metrics, split) for metrics in of_seeds.values()]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            unit = "s" if column.key.endswith("seconds") else ""
            better = {1: "higher", -1: "lower"}.get(column.better, "")
            found[column.key] = Metric.of(known, unit, better)  # type: ignore[arg-type]
    return found


def _shared(runs: Sequence[TrainedRun]) -> dict[str, Any]:
    """What all runs were told: `group.name` → value."""
    first = dict(_flat(runs[0].settings))
    others = [dict(_flat(run.settings)) for run in runs[1:]]
    return {
        name: json.loads(value)
        for name, value in first.items()
        if all(one.get(name) == value for one in others)
    }


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`optim.epochs` with its value as JSON."""
    for group, values in settings.items():
        for name, value in values.items():
            yield f"{group}.{name}", json.dumps(value)
