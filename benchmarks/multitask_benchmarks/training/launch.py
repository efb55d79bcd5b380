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
# Of one run; whatever takes longer hangs.
LIMIT_S = 3 * 3600.0
_GRACE_S = 5.0
_LOG_LINES = 15
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_job(job: Job, processes: int) -> list[Report]:
    """Train a job in fresh processes; one report of each.

    The processes end when this one does, or after `LIMIT_S`. Raises MultiTaskError with the end of
    their log.
    """
    folder = Path(job.folder)
    shutil.rmtree(folder, ignore_errors=True)
    write_job(job)
    log = folder / "worker.log"
    with log.open("wb") as output:
        worker = GuardedProcess(
            command(job, processes),
            environ=_environ(job, processes),
            grace_s=_GRACE_S,
            own_group=True,
            output=output,
        )
    try:
        status = worker.wait(LIMIT_S)
    finally:
        worker.terminate()
        worker.wait()
        worker.close()
    if status != 0:
        ended = (
            f"did not end within {LIMIT_S:.0f} s"
            if status is None
            else f"ended with status {status}"
        )
        raise MultiTaskError(
            f"training with {job.side}, precision {job.precision}, {processes} process(es) "
            f"{ended}; its last lines:\n{_end(log)}"
        )
    return [read_report(job.report_file(rank)) for rank in range(processes)]


def command(job: Job, processes: int) -> Sequence[str]:
    """Plain Python for one process, torch's launcher for several, as both sides document it."""
    module = [WORKER, str(job.file)]
    if processes == 1:
        return [sys.executable, "-m", *module]
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, "-m", *launcher, "-m", *module]


def _environ(job: Job, processes: int) -> dict[str, str]:
    """The same threads for both sides; nothing is fetched, since model and data are files.

    One process sees one GPU: the Trainer would spread its batches over all that it sees.
    """
    environ = {
        **os.environ,
        "OMP_NUM_THREADS": str(job.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if processes == 1:
        environ[_VISIBLE] = os.environ.get(_VISIBLE, "0").partition(",")[0]
    return environ


def _end(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])
