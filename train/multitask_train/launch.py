"""`accelerate launch --num_processes N` on CPUs, where it starts one process and says nothing.

Without MPI it leaves the others out; the run then starts them itself, through torchrun, with gloo.
On GPUs, and under torchrun or mpirun, all processes are there already and nothing happens here.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_core.errors import ConfigError

log = logging.getLogger(__name__)

# Set by those that start every process themselves: torchrun, Open MPI, Intel MPI, MVAPICH.
_STARTED = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_OPTIONS = ("--num_processes", "--num-processes")


def start_missing_processes(arguments: Sequence[str]) -> None:
    """Replace this process by all those that `accelerate launch` was asked for.

    arguments: of `python -m multitask_train`. Returns where none is missing; raises ConfigError
    where their number cannot be found out.
    """
    # accelerate launch sets a master's address for several processes alone.
    if "ACCELERATE_USE_CPU" not in os.environ or "MASTER_ADDR" not in os.environ:
        return
    if any(name in os.environ for name in _STARTED):
        return
    count = _asked_for(_parent_command())
    if count is None:
        raise ConfigError(
            "accelerate launch was asked for several processes and started one; on CPUs use "
            "torchrun --nproc-per-node N -m multitask_train fit …"
        )
    log.info("accelerate launch started one process of %d; torchrun starts them all", count)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), "-m", "multitask_train", *arguments]
    os.execv(command[0], command)  # noqa: S606  ourselves again, with the same arguments


def _parent_command() -> list[str]:
    try:
        data = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    return data.decode(errors="replace").rstrip("\0").split("\0")


def _asked_for(command: Sequence[str]) -> int | None:
    for word, following in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in _OPTIONS:
            number = value if equals else following
            return int(number) if number.isdigit() else None
    return None
