"""Scenario files: what is run with which options, and the variables that stand for paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Literal

from pydantic import Field

from multitask_core.config import Section, load
from multitask_core.errors import ConfigError


class Scenario(Section):
    """One scenario of a file."""

    name: str = Field(min_length=1)
    """its name in the result file"""
    command: str = Field(min_length=1)
    """the command that runs it, as typed after `multitask_benchmarks`"""
    options: dict[str, Any] = Field(default_factory=dict)
    """the command's options, by the names of its flags; `${variable}` stands for its value"""
    quick: dict[str, Any] = Field(default_factory=dict)
    """options that --quick puts in the place of others"""
    needs: list[str] = Field(default_factory=list)
    """variables without which the scenario is left out; others must be set"""


class ScenarioFile(Section):
    """A file of scenarios."""

    description: str = ""
    """what the file is for"""
    model: str = ""
    """the model's name in the result file; of a path, such as `${artifact}`, the last part"""
    device: Literal["", "cuda"] = ""
    """cuda: its scenarios are left out where there is no NVIDIA GPU"""
    variables: dict[str, str] = Field(default_factory=dict)
    """values that `--set` may replace; an empty one counts as not set"""
    scenarios: list[Scenario] = Field(min_length=1)
    """run in this order"""


def read_files(paths: Sequence[Path]) -> list[tuple[Path, ScenarioFile]]:
    """Read scenario files; raises ConfigError for a fault or for two scenarios of one name."""
    files = [(path, load(ScenarioFile, path)) for path in paths]
    seen: dict[str, Path] = {}
    for path, file in files:
        for scenario in file.scenarios:
            if scenario.name in seen:
                raise ConfigError(
                    f"{path}: scenario {scenario.name!r} stands in {seen[scenario.name]} already; "
                    "one would replace the other in the result file: give it another name"
                )
            seen[scenario.name] = path
    return files


def parse_assignments(
    values: Sequence[str], files: Sequence[tuple[Path, ScenarioFile]]
) -> dict[str, str]:
    """Read NAME=VALUE; raises ConfigError for a name that no file has."""
    known = sorted({name for _, file in files for name in file.variables})
    found = {}
    for value in values:
        name, equals, given = value.partition("=")
        if not equals:
            raise ConfigError(f"--set {value!r}: it must be NAME=VALUE")
        if name not in known:
            raise ConfigError(f"--set {value!r}: no such variable; known: {', '.join(known)}")
        found[name] = given
    return found


def fill(value: Any, variables: Mapping[str, str], place: str) -> Any:  # noqa: ANN401  YAML
    """Put variables in the place of `${name}` in strings and lists; raises ConfigError."""
    if isinstance(value, list):
        return [fill(one, variables, place) for one in value]
    if not isinstance(value, str):
        return value
    try:
        return Template(value).substitute({key: one for key, one in variables.items() if one})
    except KeyError as error:
        name = error.args[0]
        remedy = f"give --set {name}=…" if name in variables else "the file knows no such variable"
        raise ConfigError(f"{place}: {value!r} has no value for {name!r}: {remedy}") from None
    except ValueError as error:
        raise ConfigError(f"{place}: {value!r}: {error}; write $$ for a dollar sign") from error
