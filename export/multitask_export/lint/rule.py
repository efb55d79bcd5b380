"""What a rule is: a name, a severity and a check that yields a message for each fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from multitask_export.lint.reading import Config, Repository

Severity = Literal["error", "warning"]
ERROR: Severity = "error"
WARNING: Severity = "warning"


class ConfigRule(NamedTuple):
    """Looks at one config; the check yields messages."""

    name: str
    severity: Severity
    check: Callable[[Config], Iterator[str]]


class RepositoryRule(NamedTuple):
    """Looks at the whole repository; the check yields the path it speaks of and the message."""

    name: str
    severity: Severity
    check: Callable[[Repository], Iterator[tuple[str, str]]]
