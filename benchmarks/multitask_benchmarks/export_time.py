"""Time the export: from a checkpoint to an artifact whose graphs have passed their gates.

    python -m multitask_benchmarks export-time --checkpoint runs/demo

Every export is a process of its own, as a user starts it, so loading torch counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.progress import track

from multitask_benchmarks.recording import (
    add_result_arguments,
    finish,
    make_record,
    require_positive,
)
from multitask_benchmarks.report import brackets, interval, make_table, progress_console
from multitask_benchmarks.results import Measured, Metric
from multitask_benchmarks.rounds import interleaved
from multitask_core.errors import ArtifactError

_ALL = "all"
_KIB_IN_MIB = 1024
_LINES_SHOWN = 8


class Exported(NamedTuple):
    """One export. artifact_mib: what all files of the artifact take."""

    seconds: float
    peak_mib: float
    artifact_mib: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export-time`."""
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="folder written by multitask_train fit")
    add("--data", help="labelled text for the gates [the checkpoint's samples]")
    add("--variants", nargs="+", default=["fp32", _ALL], metavar="LIST",
        help="what each export writes, as its --variants; `all` is what it does unasked "
        "[%(default)s]")  # fmt: skip
    add("--rounds", type=int, default=5, help="exports of each [%(default)s]")
    add_result_arguments(parser)


def execute(options: argparse.Namespace) -> int:
    """Export in interleaved rounds and write the scenario; returns the exit status."""
    require_positive(options, "rounds")
    found: dict[str, list[Exported]] = {variants: [] for variants in options.variants}
    steps = [*interleaved(list(found), options.rounds)]
    for variants in track(steps, "exporting", console=progress_console()):
        found[variants].append(_export(options, variants))
    measurements = [
        Measured(
            variants,
            {},
            {
                "seconds": Metric.of([one.seconds for one in exports], "s", "lower"),
                "peak_mib": Metric.of([one.peak_mib for one in exports], "MiB", "lower"),
                "artifact_mib": Metric.of([one.artifact_mib for one in exports], "MiB"),
            },
        )
        for variants, exports in found.items()
    ]
    rows = [
        (one.subject, interval(one.metrics["seconds"].estimate),
            one.metrics["peak_mib"].median, one.metrics["artifact_mib"].median)
        for one in measurements
    ]  # fmt: skip
    columns = ("variants", "seconds", "peak MiB", "artifact MiB")
    title = f"Medians over {options.rounds} exports {brackets(options.rounds)}"
    table = make_table(title, columns, rows)
    brief = {one.subject: one.metrics["seconds"].median for one in measurements}
    record = make_record(options, measurements=measurements)
    return finish(options, record, [table], brief)


def _export(options: argparse.Namespace, variants: str) -> Exported:
    """One export into a folder that is removed; raises ArtifactError with the end of its log."""
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as log:
        output = Path(folder) / "artifact"
        command = [
            sys.executable, "-m", "multitask_export",
            "--checkpoint", str(options.checkpoint), "--output", str(output),
            *(["--data", options.data] if options.data else []),
            *(["--variants", variants] if variants != _ALL else []),
        ]  # fmt: skip
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            lines = Path(log.name).read_text("utf-8", "replace").splitlines()[-_LINES_SHOWN:]
            said = "\n".join(lines)
            raise ArtifactError(f"the export ended with status {process.returncode}:\n{said}")
        files = (path for path in output.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        return Exported(seconds, usage.ru_maxrss / _KIB_IN_MIB, size / _KIB_IN_MIB**2)
