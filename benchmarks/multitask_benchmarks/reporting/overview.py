"""The first table of the page: every scenario, and who was fastest in it by how much."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import geometric_mean
from typing import NamedTuple

from multitask_benchmarks.machine import hardware_slug
from multitask_benchmarks.reporting.points import against, noise, rate_name, subjects
from multitask_benchmarks.results import ResultFile, ScenarioRecord
from multitask_core.page import Link, table

COLUMNS = (
    "scenario",
    "on",
    "measured",
    "baseline",
    "fastest beside it",
    "mean ratio",
    "over points",
    "noisy",
)

PUBLISHED = "published"


class Lead(NamedTuple):
    """A subject's rate as a multiple of the baseline's, at each point where both were measured."""

    subject: str
    ratios: list[float]

    @property
    def mean(self) -> float:
        """The geometric one: no point counts more than another."""
        return geometric_mean(self.ratios)


def anchor(path: Path, name: str) -> str:
    """The id of a scenario's section."""
    return f"{path.stem}-{name}".replace(" ", "-")


def overview(files: Mapping[Path, ResultFile]) -> str:
    """The table; each row leads to its scenario's section."""
    rows = [
        _row(Link(f"{file.model}: {name}", anchor(path, name)), record)
        for path, file in files.items()
        for name, record in file.scenarios.items()
    ]
    rows.append((Link("beside published figures", PUBLISHED), *"–" * (len(COLUMNS) - 1)))
    return table(COLUMNS, rows)


def lead(record: ScenarioRecord) -> Lead | None:
    """The fastest subject beside the baseline, of those with most points; None without a rate."""
    rate = rate_name(record.measurements)
    found = []
    for subject in subjects(record):
        ratios = [
            times.median
            for one in record.measurements
            if one.subject == subject
            and (times := against(record, one, rate))
            and times.median > 0  # a rate of 0 has no share in a geometric mean
        ]
        if ratios:
            found.append(Lead(subject, ratios))
    return max(found, key=lambda one: (len(one.ratios), one.mean), default=None)


def _row(link: Link, record: ScenarioRecord) -> tuple[str | Link, ...]:
    first = lead(record)
    told = ["–", "–", "–", "–"]
    if first:
        low, high = min(first.ratios), max(first.ratios)
        told = [
            record.baseline,
            first.subject,
            f"{first.mean:.2f}",
            f"{len(first.ratios)}: {low:.2f} to {high:.2f}",
        ]
    noisy, rates = noise(record)
    hardware = hardware_slug(record.machine)
    return link, hardware, record.date[:10], *told, f"{noisy} of {rates}" if rates else "–"
