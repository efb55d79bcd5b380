"""What is compared: cells, and their runs with one seed each."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from multitask_core import manifest
from multitask_train.comparison.settings import CompareSettings, Comparison
from multitask_train.data.sources import source_hash
from multitask_train.settings import DataSettings, FitSettings, LossSettings, ModelSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One way to train. tasks: as in data.tasks; not `both` marks a single-task baseline.

    taught: tasks whose single-task baselines are teachers, those of the same seed or, with
    `ensemble`, of all seeds.
    """

    strategy: str
    balancer: str
    tasks: str = "both"
    taught: tuple[str, ...] = ()
    ensemble: bool = False

    @property
    def name(self) -> str:
        """Name of its folders and in the report."""
        if self.tasks != "both":
            return f"{self.tasks}-alone"
        teachers = [f"{one}-{'teachers' if self.ensemble else 'teacher'}" for one in self.taught]
        return "+".join([self.strategy, self.balancer, *teachers])


JOINT = Cell("full", "equal")
SINGLE = {task: Cell("full", "equal", task) for task in ("classification", "ner")}
# Which of run.best_metric a single-task baseline has; for the others it takes `mean`, its own.
_BEST = {"classification": ("accuracy", "macro_f1"), "ner": ("f1",)}


@dataclass(frozen=True)
class Run:
    """One cell with one seed. identity: SHA-256 of its settings and of what they name: corpora,
    the encoder's folder, the checkpoint it starts from.

    teachers: the runs whose checkpoints its settings name. kept: whether others name its own.
    """

    cell: Cell
    seed: int
    settings: FitSettings
    identity: str
    folder: Path
    teachers: tuple[Run, ...] = ()
    kept: bool = False

    STATES: ClassVar = ("done", "begun", "to do")

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell.name} seed {self.seed}"

    @property
    def config(self) -> Path:
        """The settings file that `fit` reads."""
        return self.folder / "settings.yaml"

    @property
    def log(self) -> Path:
        """What `fit` prints."""
        return self.folder / "log.txt"

    @property
    def checkpoint(self) -> Path:
        """The folder that `fit` writes."""
        return self.settings.run.output

    @property
    def result_file(self) -> Path:
        """Stands there once the run is finished."""
        return self.folder / "result.json"

    @property
    def fitted(self) -> bool:
        """Whether `fit` has finished: its folder appears with the metrics in one rename."""
        return (self.checkpoint / "metrics.json").is_file()

    def result(self) -> dict[str, Any] | None:
        """What a finished run measured; None where it is not finished."""
        try:
            value: dict[str, Any] = json.loads(self.result_file.read_text("utf-8"))
            if value["identity"] == self.identity:
                return value
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s): the run is done again", self.result_file, error)
            return None
        log.warning("%s belongs to other settings: the run is done again", self.result_file)
        return None

    @property
    def state(self) -> str:
        """One of STATES; `begun` is cut off or failed."""
        if self.result() is not None:
            return "done"
        return "begun" if self.folder.exists() else "to do"


def make_cells(settings: CompareSettings) -> list[Cell]:
    """The baselines, then what the settings ask for; no cell twice."""
    strategies, balancers = settings.strategies, settings.balancers
    if settings.cross:
        pairs = list(itertools.product(strategies, balancers))
    else:
        pairs = [(strategy, balancers[0]) for strategy in strategies]
        pairs += [(strategies[0], balancer) for balancer in balancers]
    cells = [*SINGLE.values(), JOINT, *(Cell(*pair) for pair in pairs)]
    if settings.teachers:  # last: it waits for its teachers
        ensemble = settings.teacher_seeds == "all" and len(settings.seeds) > 1
        cells.append(Cell(*pairs[0], taught=settings.teachers, ensemble=ensemble))
    return list(dict.fromkeys(cells))


def make_runs(comparison: Comparison) -> list[Run]:
    """All runs, seed by seed, so that one that is cut off has whole seeds.

    Those that all seeds teach come last. Raises DataError, ArtifactError.
    """
    settings = comparison.settings
    data = " ".join([data_hash(comparison.fit.data), *_weights_hashes(comparison.fit.model)])
    runs: dict[tuple[Cell, int], Run] = {}
    pairs = itertools.product(settings.seeds, make_cells(settings))
    for seed, cell in sorted(pairs, key=lambda pair: pair[1].ensemble):
        seeds = settings.seeds if cell.ensemble else (seed,)
        teachers = [runs[SINGLE[task], one] for task in cell.taught for one in seeds]
        runs[cell, seed] = _run(comparison, cell, seed, data, teachers)
    return list(runs.values())


def data_hash(data: DataSettings) -> str:
    """SHA-256 over the content of all corpora, read once; raises DataError for a missing one."""
    return hashlib.sha256(" ".join(_source_hashes(data)).encode()).hexdigest()


def _weights_hashes(model: ModelSettings) -> Iterator[str]:
    """Of the folders that the model is read from."""
    if Path(model.encoder).is_dir():
        for path in sorted(Path(model.encoder).iterdir()):
            if path.is_file():
                yield f"{path.name} {manifest.sha256(path)}"
    for name in model.start_from:
        yield manifest.read(Path(name), "checkpoint").identity


def _source_hashes(data: DataSettings) -> Iterator[str]:
    for split, sources in (("train", data.train), ("dev", data.dev), ("test", data.test)):
        for source in sources:
            yield f"{split} {source_hash(source, split)}"


def _run(comparison: Comparison, cell: Cell, seed: int, data: str, teachers: Sequence[Run]) -> Run:
    values = comparison.fit.model_dump(mode="json")
    values["data"]["tasks"] = cell.tasks
    values["optim"]["strategy"] = cell.strategy
    values["loss"]["balancer"] = cell.balancer
    if cell.balancer != "static":  # nobody reads them: other weights train no other model
        values["loss"] |= LossSettings().model_dump(include={"classification", "ner"})
    if not cell.taught:
        values["loss"]["teacher_share"] = 0.0
    values["run"] |= {"seed": seed, "threads": comparison.settings.threads, "overwrite": False}
    if cell.tasks != "both" and values["run"]["best_metric"] not in _BEST[cell.tasks]:
        values["run"]["best_metric"] = "mean"
    kept = cell.tasks in comparison.settings.teachers
    identity = _identity(values, data, kept, [one.identity for one in teachers])
    for task in cell.taught:
        checkpoints = [str(one.checkpoint) for one in teachers if one.cell.tasks == task]
        values["loss"][f"{task}_teacher"] = checkpoints
    # The identity in the name keeps `fit` from going on in what other settings left behind.
    name = f"{cell.name}_seed-{seed}_{identity[:8]}"
    folder = comparison.settings.output / "runs" / name
    values["run"]["output"] = str(folder / "run")
    made = FitSettings.model_validate(values)
    return Run(cell, seed, made, identity, folder, tuple(teachers), kept)


# Settings that came later: left out, as they are by default, they change no run that is there.
_LATER = (("model", "keep_case"), ("optim", "ema_decay"))


def _identity(values: dict[str, Any], data: str, kept: bool, teachers: Sequence[str]) -> str:
    """Where a run stands does not count: a comparison's folder may be moved.

    kept: one whose weights were dropped before teachers were asked for is done anew.
    """
    where = ("output", "overwrite")
    run = {name: value for name, value in values["run"].items() if name not in where}
    model = {**values["model"], "start_from": ""}  # `data` has its content
    shown = {**values, "model": model, "run": run, "optim": dict(values["optim"])}
    for section, name in _LATER:
        if not shown[section][name]:
            del shown[section][name]
    canonical = json.dumps([shown, data, kept, *teachers], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
