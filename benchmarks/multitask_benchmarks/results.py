"""Result files: what was measured, on what, with which settings, with every round's raw values.

One file for each model, hardware and month, `<model>_<hardware>_<yyyymm>.json`, holds that
month's scenarios by name. Writing a scenario replaces the one of that name and keeps the others.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from multitask_benchmarks.machine import describe_machine, hardware_slug, slug
from multitask_benchmarks.stats import Estimate, estimate
from multitask_core.errors import DataError
from multitask_core.files import write_json

SCHEMA_VERSION = 2
# What begins the names of subjects that are the machine's own limit, in the same rounds.
MACHINE_PEAK = "GEMM peak"
_DIGITS = 6

Better = Literal["higher", "lower", ""]
Point = dict[str, str | int | float]


@dataclass(frozen=True)
class Metric:
    """One figure of one subject at one point: raw value of each round, and what they say together.

    unit: `ms`, `1/s`, `MiB`, "" for a share. better: which direction is; "" for a plain fact.
    median, low, high, spread, noisy: as in `stats.Estimate`.
    """

    unit: str
    better: Better
    rounds: tuple[float, ...]
    median: float
    low: float
    high: float
    spread: float
    noisy: bool

    @classmethod
    def of(cls, values: Sequence[float], unit: str, better: Better = "") -> Metric:
        """Estimate over rounds, at least one; values are kept to six digits."""
        rounds = tuple(_digits(value) for value in values)
        found = estimate(rounds)
        figures = {name: _digits(value) for name, value in asdict(found).items()}
        return cls(unit, better, rounds, **figures, noisy=found.noisy)

    @property
    def estimate(self) -> Estimate:
        """The median with its interval."""
        return Estimate(self.median, self.low, self.high, self.spread)


@dataclass(frozen=True)
class Measured:
    """A subject's metrics by name at one point of the scenario's grid, say 8 rows of 128 pieces."""

    subject: str
    point: Point
    metrics: dict[str, Metric]


@dataclass(frozen=True)
class ScenarioRecord:
    """One scenario as it was run.

    kind: the command that made it. date: ISO. config: settings without paths. baseline: subject
    that the others are compared with at the same point, or "". details: what has no rounds.
    """

    kind: str
    date: str
    machine: dict[str, Any]
    config: dict[str, Any]
    baseline: str = ""
    measurements: list[Measured] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def now(
        cls,
        kind: str,
        config: dict[str, Any],
        *,
        baseline: str = "",
        measurements: Sequence[Measured] = (),
        details: dict[str, Any] | None = None,
    ) -> ScenarioRecord:
        """A record of today on this machine."""
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        machine = describe_machine()
        return cls(kind, date, machine, config, baseline, list(measurements), details or {})

    @property
    def commit(self) -> str:
        """Git commit of the code that measured, "" where it is not known."""
        return str((self.machine.get("git") or {}).get("commit", ""))

    def find(self, subject: str, point: Mapping[str, Any]) -> Measured | None:
        """A subject's metrics at a point."""
        for one in self.measurements:
            if one.subject == subject and one.point == point:
                return one
        return None


@dataclass(frozen=True)
class ResultFile:
    """A model's scenarios by name."""

    model: str
    scenarios: dict[str, ScenarioRecord]
    schema_version: int = SCHEMA_VERSION


_ADAPTER = TypeAdapter(ResultFile)


def result_path(folder: Path, model: str, record: ScenarioRecord) -> Path:
    """`<folder>/<model>_<hardware>_<yyyymm>.json`."""
    month = record.date[:7].replace("-", "")
    hardware = hardware_slug(record.machine, record.config.get("device", ""))
    return folder / f"{slug(model)}_{hardware}_{month}.json"


def write_scenario(folder: Path, model: str, name: str, record: ScenarioRecord) -> Path:
    """Put a scenario into its file, atomically; returns the file's path.

    Raises DataError for a file there that is no result file: it is not overwritten.
    """
    path = result_path(folder, model, record)
    with _locked(folder):
        scenarios = read_results(path).scenarios if path.exists() else {}
        found = ResultFile(model, dict(sorted({**scenarios, name: record}.items())))
        write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(found)})
    return path


def read_results(path: Path) -> ResultFile:
    """Read a result file. Raises DataError for anything else, OSError where there is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
        version = value.get("schema_version")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is no result file: {error}") from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema_version {version!r}, this version reads {SCHEMA_VERSION}: run its "
            "scenarios again, with another --output or the old file moved away"
        )
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} is damaged at {place}: {first['msg']}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for other writers in the folder; the lock is the folder's own, no file is left."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digits(value: float) -> float:
    """Six significant digits: more than any clock gives."""
    return float(f"{value:.{_DIGITS}g}")
