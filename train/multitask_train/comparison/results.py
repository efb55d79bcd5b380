"""What a run leaves: its settings file, its result, and of its checkpoint what is worth keeping."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from multitask_core.files import write_json, write_text
from multitask_train.comparison.cells import Run

# Of a checkpoint without its weights: what was measured, and how it went.
KEPT = ("metrics.json", "history.json", "settings.yaml", "environment.json", "logs")
KEPT_SUFFIX = ".png"


def write_config(run: Run) -> None:
    """Write the settings file that `fit` reads."""
    values = run.settings.model_dump(mode="json")
    write_text(run.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def harvest(run: Run) -> dict[str, Any]:
    """Note the result of a run whose `fit` has finished; returns it.

    Raises OSError, ValueError where `fit` left no metrics.
    """
    metrics = json.loads((run.checkpoint / "metrics.json").read_text("utf-8"))
    result = {
        "identity": run.identity,
        "cell": run.cell.name,
        "strategy": run.cell.strategy,
        "balancer": run.cell.balancer,
        "tasks": run.cell.tasks,
        "teachers": _teachers(run),
        "seed": run.seed,
        "metrics": metrics,
    }
    write_json(run.result_file, result)
    return result


def _teachers(run: Run) -> dict[str, list[str]]:
    """Names of those of each task; without the seed where each seed has its own."""
    return {
        task: [
            one.name if run.cell.ensemble else one.cell.name
            for one in run.teachers
            if one.cell.tasks == task
        ]
        for task in run.cell.taught
    }


def drop_weights(run: Run) -> None:
    """Delete of a finished run's checkpoint all but its figures; harmless when done before.

    Without its manifest the rest is refused as a checkpoint, which it no longer is.
    """
    dropped = list(run.folder.glob(f".{run.checkpoint.name}.*"))  # of a process that was killed
    if run.checkpoint.is_dir():
        dropped += [path for path in run.checkpoint.iterdir() if not _kept(path)]
    for path in dropped:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _kept(path: Path) -> bool:
    return path.name in KEPT or path.suffix == KEPT_SUFFIX


def without_types(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics without each type's: those stand in the run's own result."""
    return {
        name: without_types(value) if isinstance(value, dict) else value
        for name, value in metrics.items()
        if name != "types"
    }
