"""NVIDIA's perf_analyzer as a second load generator: its command, its input, its CSV.

It is in the tritonclient wheel up to 2.51 (`data/bin/perf_analyzer`, needs libb64 and libcudart 12)
and in Triton's SDK container.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from multitask_core.errors import ServeError
from multitask_core.signature import TEXT, TEXT_MODEL

NAME = "perf_analyzer"
# It reports over three windows that agree; so wide a margin makes it take the first three.
_WINDOWS, _AGREEMENT_PERCENT = 3, 999
_COMPUTE = ("Server Compute Input", "Server Compute Infer", "Server Compute Output")
_MEAN = ("Client Send", "Network+Server Send/Recv", "Server Queue", *_COMPUTE, "Client Recv")
_SLACK_S = 120.0


def find() -> str | None:
    """Its path, None where it is not on PATH."""
    return shutil.which(NAME)


def run(
    program: str, url: str, texts: Sequence[str], callers: int, seconds: float
) -> dict[str, float]:
    """A closed loop of so many callers for about so long; figures by name, as `figures.UNITS`.

    Raises ServeError with its last line where it fails.
    """
    with tempfile.TemporaryDirectory(prefix="perf-analyzer-") as name:
        data, report = Path(name) / "input.json", Path(name) / "report.csv"
        data.write_text(input_data(texts), "utf-8")
        words = command(program, url, data, report, callers, seconds)
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=seconds + _SLACK_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServeError(f"{NAME} did not end well: {error}") from error
        if done.returncode or not report.exists():
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise ServeError(f"{NAME} ended with status {done.returncode} and said: {said}")
        return read_report(report.read_text("utf-8"))


def input_data(texts: Sequence[str]) -> str:
    """Its --input-data: the texts in order, one a request, as the model's TEXT [1]."""
    steps = [{TEXT: {"content": [text], "shape": [1]}} for text in texts]
    return json.dumps({"data": steps})


def command(
    program: str, url: str, data: Path, report: Path, callers: int, seconds: float
) -> list[str]:
    """Its command line."""
    return [
        program, "-m", TEXT_MODEL, "-u", url, "-i", "grpc", "--input-data", str(data),
        "--concurrency-range", f"{callers}:{callers}",
        "--measurement-interval", str(max(1, round(1e3 * seconds / _WINDOWS))),
        "--stability-percentage", str(_AGREEMENT_PERCENT), "-f", str(report),
    ]  # fmt: skip


def read_report(page: str) -> dict[str, float]:
    """Its CSV, times in µs, as figures of one round; raises ServeError for anything else."""
    try:
        (row,) = csv.DictReader(page.splitlines())
        found = {
            "answers_per_s": float(row["Inferences/Second"]),
            "queue_ms": float(row["Server Queue"]) / 1e3,
            "compute_ms": sum(float(row[name]) for name in _COMPUTE) / 1e3,
            "mean_ms": sum(float(row[name]) for name in _MEAN) / 1e3,
        }
        percentiles = {f"p{one}_ms": float(row[f"p{one} latency"]) / 1e3 for one in (50, 95, 99)}
    except (ValueError, KeyError, TypeError) as error:
        raise ServeError(f"{NAME} wrote a report that cannot be read: {page[:200]!r}") from error
    outside_ms = found["mean_ms"] - found["queue_ms"] - found["compute_ms"]
    return {**found, **percentiles, "outside_ms": outside_ms}
