"""Strict settings from YAML and the command line: every fault at once, with its path and the
nearest known name.

A settings class derives from `Section`; the string under each field is its help text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from multitask_core.errors import ConfigError


class Section(BaseModel):
    """Base of settings classes: frozen, unknown names refused, field strings are help texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


S = TypeVar("S", bound=Section)


def load(kind: type[S], path: Path | None, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, apply `--section.key value` overrides and check the result.

    Raises ConfigError that lists every fault.
    """
    values = _read_yaml(path) if path else {}
    for dotted, value in parse_overrides(overrides):
        _assign(values, dotted.split("."), value, dotted)
    return parse(kind, values, str(path or "the settings"))


def parse(kind: type[S], values: Mapping[str, Any], source: str) -> S:
    """Check plain values against a settings class; `source` names them in the error."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = [_fault(kind, fault) for fault in error.errors()]
        listing = "\n".join(f"  {line}" for line in faults)
        raise ConfigError(f"{source}: {len(faults)} fault(s)\n{listing}") from None


def parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """`--a.b 1 --c=x` → [("a.b", 1), ("c", "x")]; values are read as YAML."""
    result: list[tuple[str, Any]] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ConfigError(
                f"unexpected argument {word!r}; settings look like --section.key value"
            )
        if not equals:
            if not queue:
                raise ConfigError(f"--{name} lacks a value")
            value = queue.pop(0)
        result.append((name, _scalar(name, value)))
    return result


def describe(kind: type[Section], prefix: str = "") -> list[str]:
    """One help line for each setting: dotted name, type, default, meaning."""
    lines: list[str] = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            lines.extend(describe(inner, f"{prefix}{name}."))
            continue
        default = (
            "required"
            if field.is_required()
            else repr(field.get_default(call_default_factory=True, validated_data={}))
        )
        meaning = " ".join((field.description or "").split())
        lines.append(f"  --{prefix}{name:<{max(1, 26 - len(prefix))}} {meaning} [{default}]")
    return lines


class _Loader(yaml.SafeLoader):
    """YAML 1.2 in what users type: `no`, `off` and dates are words, true and false booleans."""


def _use_yaml_12(loader: type[yaml.SafeLoader]) -> None:
    left_out = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in left_out]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    booleans = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
    loader.add_implicit_resolver(left_out[0], booleans, list("tTfF"))


_use_yaml_12(_Loader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506  a safe loader
    except FileNotFoundError:
        raise ConfigError(f"there is no settings file {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the settings file {path}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, not {type(values).__name__}")
    return values


def _scalar(name: str, value: str) -> Any:  # noqa: ANN401  any YAML value
    try:
        return yaml.load(value, _Loader)  # noqa: S506  a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"--{name} {value!r} is no YAML value: {error}") from error


def _assign(values: dict[str, Any], path: list[str], value: object, dotted: str) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--{dotted}: {part!r} is a value, not a section")
        values = inner
    values[path[-1]] = value


def _fault(kind: type[Section], fault: Any) -> str:  # noqa: ANN401  pydantic's ErrorDetails
    path = [str(part) for part in fault["loc"]]
    where = ".".join(path)
    if fault["type"] == "extra_forbidden":
        known = _names_at(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{where}: unknown setting; {hint}"
    if fault["type"] == "missing":
        return f"{where}: required, not given"
    return f"{where}: {fault['msg']}; got {fault['input']!r}"


def _names_at(kind: type[Section], path: list[str]) -> list[str]:
    current: Any = kind
    for part in path:
        field = current.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            break
        current = field.annotation
    return list(getattr(current, "model_fields", {}))
