"""What a worker is told to train and what it reports, as JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from multitask_core.files import write_json

OURS, TRAINER, GROUPED = "ours", "trainer", "trainer-grouped"
SIDES = (TRAINER, GROUPED, OURS)


@dataclass(frozen=True)
class Job:
    """One training run; every process of it reads the same job.

    model: folder in Hugging Face layout. features: file of `prepare.write_features`. folder: takes
    the reports. batch_size: windows in a batch of one process. warmup, updates: updates before the
    clock starts, and timed ones. threads: of one process. exact: no dropout, a constant rate, and
    losses are reported.
    """

    side: str
    model: str
    features: str
    folder: str
    pad_id: int
    precision: str
    batch_size: int
    warmup: int
    updates: int
    threads: int
    seed: int
    exact: bool = False

    @property
    def file(self) -> Path:
        """Where the job is written for its worker."""
        return Path(self.folder) / "job.json"

    def report_file(self, rank: int) -> Path:
        """Where process `rank` leaves its report."""
        return Path(self.folder) / f"report-{rank}.json"


@dataclass(frozen=True)
class Work:
    """What was learned from: windows, real tokens, and slots, which are tokens with padding."""

    windows: int
    tokens: int
    slots: int

    @classmethod
    def total(cls, parts: Sequence[Work]) -> Work:
        """The sum of all parts."""
        return cls(
            sum(one.windows for one in parts),
            sum(one.tokens for one in parts),
            sum(one.slots for one in parts),
        )


@dataclass(frozen=True)
class Report:
    """One process's part of a run; `work` is that of the timed updates.

    peak_mib: its largest resident memory. device_mib: what its tensors took of the GPU at most.
    losses: both tasks' losses summed, of all processes, update by update where the job is exact.
    gradient_norms: likewise, before clipping.
    """

    seconds: float
    cpu_s: float
    peak_mib: float
    work: Work
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    device_mib: float = 0.0


def write_job(job: Job) -> None:
    """Write a job for its worker."""
    write_json(job.file, asdict(job))


def read_job(path: Path) -> Job:
    """Read a job in the worker."""
    return Job(**json.loads(path.read_text("utf-8")))


def write_report(path: Path, report: Report) -> None:
    """Write one process's report."""
    write_json(path, asdict(report))


def read_report(path: Path) -> Report:
    """Read one process's report."""
    values = json.loads(path.read_text("utf-8"))
    return Report(**{**values, "work": Work(**values["work"])})
