"""Published figures, and ours beside them where one was measured on a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from multitask_benchmarks.report import figures
from multitask_benchmarks.results import Measured, Metric, ResultFile, ScenarioRecord
from multitask_core.config import Section, load

NOT_MEASURED = "not measured"
COLUMNS = ("published", "hardware", "what", "ms", "ours, ms", "ours is", "source")
_FILE = Path(__file__).with_name("published.yaml")
_KIND = "engines"
_LATENCY = "p50_ms"


class Reference(Section):
    """One published figure."""

    name: str
    """what was measured"""
    source: str
    """public address"""
    hardware: str
    """the GPU"""
    what: str
    """model, length and batch"""
    latency_ms: float
    """of one call"""
    shape: dict[str, int] = Field(default_factory=dict)
    """hidden width and layers of the model, by which ours is known whatever its name"""
    point: dict[str, int] = Field(default_factory=dict)
    """where our `engines` measures the same"""


class References(Section):
    """The file."""

    references: list[Reference]
    """all of them"""


def rows(files: Sequence[ResultFile]) -> list[tuple[str, ...]]:
    """A row for each published figure; ours is the fastest at the same point on any GPU."""
    return [_row(one, files) for one in load(References, _FILE).references]


def _row(reference: Reference, files: Sequence[ResultFile]) -> tuple[str, ...]:
    published = (
        reference.name, reference.hardware, reference.what, figures(reference.latency_ms)
    )  # fmt: skip
    found = list(_ours(reference, files))
    if not found:
        return (*published, NOT_MEASURED, "", reference.source)
    record, measured, metric = min(found, key=lambda one: one[2].median)
    gpu = record.machine["gpus"][0].partition(",")[0]
    shown = f"{figures(metric.median)} [{figures(metric.low)}, {figures(metric.high)}]"
    return (*published, shown, f"{measured.subject} on {gpu}", reference.source)


def _ours(
    reference: Reference, files: Iterable[ResultFile]
) -> Iterable[tuple[ScenarioRecord, Measured, Metric]]:
    for file in files:
        for record in file.scenarios.values():
            if record.kind == _KIND and _has_shape(record, reference) and _on_gpu(record):
                for one in record.measurements:
                    if one.point == reference.point and _LATENCY in one.metrics:
                        yield record, one, one.metrics[_LATENCY]


def _has_shape(record: ScenarioRecord, reference: Reference) -> bool:
    shape = record.details.get("flops", {})
    wanted = reference.shape.items()
    return bool(wanted) and all(shape.get(name) == value for name, value in wanted)


def _on_gpu(record: ScenarioRecord) -> bool:
    """Whether a GPU measured; a machine that has one may have been told to take the CPU."""
    settled = record.details.get("settled", {}).get("device", record.config.get("device"))
    return settled == "cuda" and bool(record.machine.get("gpus"))
