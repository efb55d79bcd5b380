"""What `accelerate launch` leaves undone: starting all processes on CPUs, and stopping them.

Without MPI it starts one process on CPUs and says nothing; the run then starts them all itself,
through torchrun, with gloo. On GPUs, and under torchrun or mpirun, they are all there already.
Ended by a signal, it does not tell the one that it started; the kernel does, see `follow_launcher`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_core.errors import ConfigError

log = logging.getLogger(__name__)

# Set by those that start every process themselves: torchrun, Open MPI, Intel MPI, MVAPICH.
_STARTED = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_OPTIONS = ("--num_processes", "--num-processes")
# What starts the processes of a run; the last module is what starts the missing ones below.
_COMMANDS = ("accelerate", "accelerate-launch", "torchrun")
_MODULES = ("accelerate.commands.launch", "torch.distributed.run")
_PR_SET_PDEATHSIG = 1


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


def follow_launcher() -> None:
    """Have this process, and what takes its place, get SIGTERM when its launcher ends. Linux alone.

    Not under another parent: the shell of a run started with nohup or setsid may go.
    """
    launcher = os.getppid()
    if not is_launched():
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != launcher:  # it ended before we asked
        signal.raise_signal(signal.SIGTERM)


def is_launched() -> bool:
    """Whether accelerate or torchrun started this process; False where there is no /proc."""
    # An interpreter with an option at most, -m, and the name.
    return any(Path(word).name in _COMMANDS + _MODULES for word in _parent_command()[:4])


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
