"""The tables of rules, and the run over a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from multitask_export.lint import (
    accelerators,
    agreement,
    batching,
    graphs,
    layout,
    profiles,
    warmups,
)
from multitask_export.lint.reading import Repository
from multitask_export.lint.rule import ERROR, ConfigRule, RepositoryRule, Severity

REPOSITORY_RULES: tuple[RepositoryRule, ...] = (*layout.REPOSITORY_RULES, *agreement.RULES)
CONFIG_RULES: tuple[ConfigRule, ...] = (
    *layout.CONFIG_RULES,
    *batching.RULES,
    *graphs.RULES,
    *accelerators.RULES,
    *profiles.RULES,
    *warmups.RULES,
)

_Subject = TypeVar("_Subject")
_Fault = TypeVar("_Fault")


@dataclass(frozen=True)
class Finding:
    """One fault.

    path: the config or folder, relative to the repository. message: what is there, what is allowed,
    what to do.
    """

    severity: Severity
    path: str
    rule: str
    message: str


def lint(repository: Path) -> list[Finding]:
    """Every fault of a model repository, in the order of its paths.

    Raises ConfigError where the folder does not exist or holds no model.
    """
    return sorted(_findings(Repository.read(repository)), key=lambda one: (one.path, one.severity))


def _findings(repository: Repository) -> Iterator[Finding]:
    for rule in REPOSITORY_RULES:
        faults, failure = _checked(rule.check, repository)
        for path, message in faults:
            yield Finding(rule.severity, path, rule.name, message)
        if failure:
            yield Finding(ERROR, ".", rule.name, failure)
    for config in repository.configs:
        for config_rule in CONFIG_RULES:
            messages, failure = _checked(config_rule.check, config)
            for message in messages:
                yield Finding(config_rule.severity, config.path, config_rule.name, message)
            if failure:
                yield Finding(ERROR, config.path, config_rule.name, failure)


def _checked(
    check: Callable[[_Subject], Iterable[_Fault]], subject: _Subject
) -> tuple[list[_Fault], str]:
    """What a check found, and why it could not go on: a file that cannot be read is a finding."""
    faults: list[_Fault] = []
    try:
        faults.extend(check(subject))
    except (OSError, ValueError) as error:
        return faults, f"cannot be checked: {error}; make the files readable and lint again"
    return faults, ""
