"""Strict settings: all faults at once."""

from pathlib import Path

import pytest
from pydantic import Field

from multitask_core.config import Section, describe, load
from multitask_core.errors import ConfigError


class Inner(Section):
    """Inner."""

    rate: float = Field(default=0.1, gt=0)
    """Rate per step"""
    names: tuple[str, ...] = ()
    """Names"""


class Outer(Section):
    """Outer."""

    inner: Inner = Inner()
    """Inner settings"""
    steps: int
    """Steps"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("steps: 3\ninner: {rate: 0.5}\n")
    return path


def test_file_and_overrides(file: Path) -> None:
    settings = load(Outer, file, ["--inner.rate", "3e-5", "--inner.names=[a, b]", "--steps", "4"])
    assert settings == Outer(steps=4, inner=Inner(rate=3e-5, names=("a", "b")))


def test_all_faults_are_told_with_path_and_nearest_name(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Outer, file, ["--inner.rat", "1", "--steps", "many", "--inner.rate", "-1"])
    message = str(caught.value)
    assert "3 fault(s)" in message
    assert "inner.rat: unknown setting; did you mean 'rate'?" in message
    assert "steps: " in message
    assert "got 'many'" in message
    assert "inner.rate: " in message


def test_a_missing_setting() -> None:
    with pytest.raises(ConfigError, match="steps: required, not given"):
        load(Outer, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps"], "unexpected argument 'steps'"),
        (["--steps"], "--steps lacks a value"),
        (["--steps", "{"], "no YAML value"),
        (["--steps.x", "1"], "is a value, not a section"),
    ],
)
def test_bad_overrides(file: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Outer, file, words)


@pytest.mark.parametrize("content", ["a: [", "- 1", "\x00"])
def test_bad_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load(Outer, path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no settings file"):
        load(Outer, tmp_path / "none.yaml")


def test_words_that_old_yaml_took_for_booleans_and_dates(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("steps: 1\ninner: {names: [no, off, yes, 2024-01-01, on]}\n")
    assert load(Outer, path).inner.names == ("no", "off", "yes", "2024-01-01", "on")
    assert load(Outer, path, ["--inner.names", "[n, No]"]).inner.names == ("n", "No")


def test_help_lists_every_setting() -> None:
    text = "\n".join(describe(Outer))
    assert "--inner.rate" in text
    assert "Rate per step [0.1]" in text
    assert "Steps [required]" in text
