"""The settings of `compare`, with their meaning and unit; see train/configs/compare-snips.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from multitask_core.config import Section, load, parse
from multitask_core.errors import ConfigError
from multitask_train.settings import FitSettings, LossSettings, OptimSettings, Positive, Seed

T = TypeVar("T")

STRATEGIES: tuple[str, ...] = get_args(OptimSettings.model_fields["strategy"].annotation)
BALANCERS: tuple[str, ...] = get_args(LossSettings.model_fields["balancer"].annotation)

# Settings of a run that the comparison gives to every run itself, and what says them here.
_SET_HERE = {
    ("data", "tasks"): "the single-task baselines are always among the cells",
    ("optim", "strategy"): "name it in `strategies`",
    ("loss", "balancer"): "name it in `balancers`",
    ("loss", "classification_teacher"): "give `teachers`",
    ("loss", "ner_teacher"): "give `teachers`",
    ("run", "seed"): "name it in `seeds`",
    ("run", "threads"): "give `threads`",
    ("run", "output"): "give `output`",
    ("run", "overwrite"): "name another `output`",
}


def _as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _unique(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("repeated", "each may stand once")
    return values


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def check(word: str) -> str:
        if word not in words:
            near = difflib.get_close_matches(word, words, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(words)}"
            raise PydanticCustomError("unknown_word", "unknown, {hint}", {"hint": hint})
        return word

    return check


# Each takes one item or a list; none may be empty or say something twice.
Strategies = Annotated[
    tuple[Annotated[str, AfterValidator(_one_of(STRATEGIES))], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    AfterValidator(_unique),
]
Balancers = Annotated[
    tuple[Annotated[str, AfterValidator(_one_of(BALANCERS))], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    AfterValidator(_unique),
]
Seeds = Annotated[
    tuple[Seed, ...], BeforeValidator(_as_list), Field(min_length=1), AfterValidator(_unique)
]


Teachers = Annotated[
    tuple[Literal["classification", "ner"], ...], BeforeValidator(_as_list), AfterValidator(_unique)
]


class CompareSettings(Section):
    """Everything `compare` can be told."""

    base: Path | None = None
    """Settings file of `fit` that every run starts from, as seen from the working directory"""
    fit: FitSettings = FitSettings()
    """Settings of `fit` that replace those of the base"""
    strategies: Strategies = STRATEGIES
    """What trains: words of optim.strategy; all meet the first balancer"""
    balancers: Balancers = BALANCERS
    """How the tasks are weighed: words of loss.balancer; all meet the first strategy"""
    cross: bool = False
    """Every strategy with every balancer, not with the first alone"""
    teachers: Teachers = ()
    """One cell more: the first strategy and balancer, taught by the baselines of these tasks"""
    teacher_seeds: Literal["own", "all"] = "own"
    """Which baselines teach a run: that of its own seed, or all seeds' together"""
    seeds: Seeds = (1, 2, 3)
    """Each cell is trained once with each"""
    jobs: Positive = 1
    """Runs at once"""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of each run; 0: torch's choice, which is right for one job alone"""
    output: Path = Path("runs/compare")
    """Folder of the runs and the report; a comparison that was cut off goes on there"""
    keep_checkpoints: bool = False
    """Keep the weights of every run, not its figures alone; those of teachers always stay"""


@dataclass(frozen=True)
class Comparison:
    """settings: what was asked for. fit: what every run starts from, base and `fit` in one."""

    settings: CompareSettings
    fit: FitSettings


def load_comparison(path: Path, overrides: Sequence[str] = ()) -> Comparison:
    """Read a comparison's file and its base; raises ConfigError that lists every fault."""
    settings = load(CompareSettings, path, overrides)
    faults = [
        f"  fit.{section}.{name}: the comparison sets it; {advice}"
        for (section, name), advice in _SET_HERE.items()
        if name in getattr(settings.fit, section).model_fields_set
    ]
    if faults:
        raise ConfigError("\n".join([f"{path}: {len(faults)} fault(s)", *faults]))
    fit = _merged(settings)
    if fit.loss.teacher_share and not settings.teachers:
        raise ConfigError(
            f"{path}: loss.teacher_share is {fit.loss.teacher_share:g}, and no cell has a teacher; "
            "give `teachers`, such as [ner]"
        )
    if settings.teacher_seeds == "all" and not settings.teachers:
        raise ConfigError(
            f"{path}: teacher_seeds all says whose baselines teach, and no cell has a teacher; "
            "give `teachers`, such as [ner]"
        )
    return Comparison(settings, fit)


def _merged(settings: CompareSettings) -> FitSettings:
    values = _given(load(FitSettings, settings.base))
    if values.get("data", {}).get("tasks", "both") != "both":
        raise ConfigError(
            f"{settings.base}: data.tasks trains one task alone; a comparison needs a base that "
            "trains both, and adds the single-task baselines itself"
        )
    for section, given in _given(settings.fit).items():
        values.setdefault(section, {}).update(given)
    return parse(FitSettings, values, "base and fit together")


def _given(settings: FitSettings) -> dict[str, Any]:
    """What a file said, without the defaults."""
    return settings.model_dump(mode="json", exclude_unset=True)
