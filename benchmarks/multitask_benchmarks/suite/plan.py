"""Scenario files → steps whose options the commands' own parser has checked, before any runs."""

from __future__ import annotations

import argparse
import difflib
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitask_benchmarks.suite.files import Scenario, ScenarioFile, fill
from multitask_core.errors import ConfigError

# What the names of short runs end in, so that they do not replace full ones in the result file.
QUICK = " quick"


@dataclass(frozen=True)
class Step:
    """One scenario, ready to run. remedy: what it is left out for want of, "" where it runs."""

    name: str
    command: str
    arguments: tuple[str, ...]
    options: argparse.Namespace
    remedy: str = ""


def make_steps(
    files: Sequence[tuple[Path, ScenarioFile]],
    assigned: Mapping[str, str],
    parser: argparse.ArgumentParser,
    common: Sequence[str],
    *,
    quick: bool,
    has_gpu: bool = True,
) -> list[Step]:
    """Every scenario's step; `quick` ones have names of their own.

    common: arguments that all get; a model's name among them counts before that of the file.
    has_gpu: whether files that need an NVIDIA GPU have one. Raises ConfigError for the first option
    that its command refuses.
    """
    steps: list[Step] = []
    for path, file in files:
        variables = {**file.variables, **{k: v for k, v in assigned.items() if k in file.variables}}
        model = Path(fill(file.model, variables, str(path))).name
        shared = (*(("--name", model) if model else ()), *common)
        for scenario in file.scenarios:
            name = scenario.name.removesuffix(QUICK) + QUICK if quick else scenario.name
            place = f"{path}: scenario {scenario.name!r}"
            if name in (step.name for step in steps):
                raise ConfigError(f"{place}: another one is called {name!r} with --quick: run one")
            missing = [name for name in scenario.needs if not variables.get(name)]
            remedy = f"needs --set {' '.join(f'{one}=…' for one in missing)}" if missing else ""
            if file.device == "cuda" and not has_gpu:
                remedy = "needs an NVIDIA GPU"
            if remedy:
                empty = argparse.Namespace()
                steps.append(Step(name, scenario.command, (), empty, remedy))
            else:
                steps.append(_step(scenario, name, variables, parser, shared, place, quick=quick))
    return steps


def _step(
    scenario: Scenario,
    name: str,
    variables: Mapping[str, str],
    parser: argparse.ArgumentParser,
    common: Sequence[str],
    place: str,
    *,
    quick: bool,
) -> Step:
    given = {**scenario.options, **(scenario.quick if quick else {})}
    values = {option: fill(value, variables, place) for option, value in given.items()}
    words = scenario.command.split()
    command = find_command(parser, words, place)
    if not find_flag(command, "as"):
        raise ConfigError(f"{place}: {scenario.command!r} writes no scenario to a result file")
    # The last one counts where an option comes twice: the scenario's own.
    arguments = (*words, "--as", name, *common, *to_arguments(command, values, place))
    options = _parse(parser, arguments, place)
    return Step(name, scenario.command, arguments, options)


def find_command(
    parser: argparse.ArgumentParser, words: Sequence[str], place: str
) -> argparse.ArgumentParser:
    """The parser of a command such as `serving throughput`; raises ConfigError."""
    for word in words:
        choices = _choices(parser)
        if word not in choices:
            known = ", ".join(choices) or "none"
            raise ConfigError(f"{place}: no command {' '.join(words)!r}; known: {known}")
        parser = choices[word]
    if _choices(parser):
        raise ConfigError(
            f"{place}: {' '.join(words)!r} needs one of {', '.join(_choices(parser))} after it"
        )
    return parser


def to_arguments(
    command: argparse.ArgumentParser, values: Mapping[str, Any], place: str
) -> list[str]:
    """Options as words of the command line; raises ConfigError for a name without a flag."""
    words: list[str] = []
    for name, value in values.items():
        action = find_flag(command, name)
        if action is None:
            raise ConfigError(f"{place}: {_unknown(command, name)}")
        if action.nargs == 0 and not isinstance(value, bool):
            raise ConfigError(f"{place}: {name} is a switch: write true or false, not {value}")
        words += option_words(action, action.option_strings[-1], value)
    return words


def option_words(action: argparse.Action | None, flag: str, value: Any) -> list[str]:  # noqa: ANN401
    """An option as argparse reads it; the action decides how a list is written, None is unknown."""
    if isinstance(value, bool):
        return [flag] if value else []
    several = value if isinstance(value, list) else [value]
    if isinstance(action, argparse._AppendAction):
        return [f"{flag}={one}" for one in several]
    return [flag, *map(str, several)]


def find_flag(command: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    """The action of an option by its name in a scenario file; None for an unknown one."""
    wanted = "--" + name.replace("_", "-")
    found = (one for one in command._actions if wanted in one.option_strings)
    return next(found, None)


def _unknown(command: argparse.ArgumentParser, name: str) -> str:
    flags = [flag.removeprefix("--") for one in command._actions for flag in one.option_strings]
    near = difflib.get_close_matches(name.replace("_", "-"), flags, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(flags))}"
    return f"{command.prog.partition(' -m ')[2]} has no option {name!r}; {hint}"


def _choices(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices: Mapping[str, argparse.ArgumentParser] = action.choices
            return choices
    return {}


def _parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str], place: str
) -> argparse.Namespace:
    """What the command line would give; its complaint becomes a ConfigError."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parser.parse_args(list(arguments))
    except SystemExit:
        complaint = said.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(f"{place}: {complaint}") from None
