"""Starts a worker for a job, in one process or several, and collects what it reports."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_benchmarks.training.jobs import Job, Report, read_report, write_job
from multitask_core.errors import MultiTaskError
from multitask_serve.process import GuardedProcess

WORKER = "multitask_benchmarks.training.worker"
_GRACE_S = 5.0
_LOG_LINES = 15


def run_job(job: Job, processes: int) -> list[Report]:
    """Train a job in fresh processes; one report of each.

    The processes end when this one does. Raises MultiTaskError with the end of their log.
    """
    folder = Path(job.folder)
    shutil.rmtree(folder, ignore_errors=True)
    write_job(job)
    log = folder / "worker.log"
    with log.open("wb") as output:
        worker = GuardedProcess(
            command(job, processes),
            environ=_environ(job),
            grace_s=_GRACE_S,
            own_group=True,
            output=output,
        )
    try:
        status = worker.wait()
    finally:
        worker.terminate()
        worker.wait()
        worker.close()
    if status:
        raise MultiTaskError(
            f"training with {job.side}, precision {job.precision}, {processes} process(es) ended "
            f"with status {status}; its last lines:\n{_end(log)}"
        )
    return [read_report(job.report_file(rank)) for rank in range(processes)]


def command(job: Job, processes: int) -> Sequence[str]:
    """Plain Python for one process, torch's launcher for several, as both sides document it."""
    module = [WORKER, str(job.file)]
    if processes == 1:
        return [sys.executable, "-m", *module]
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, "-m", *launcher, "-m", *module]


def _environ(job: Job) -> dict[str, str]:
    """The same threads for both sides; nothing is fetched, since model and data are files."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(job.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _end(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])
