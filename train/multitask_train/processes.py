"""The processes of a run: what Accelerate is told of them, their memory, and who else may run."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list

from multitask_core.errors import ConfigError, MultiTaskError
from multitask_core.locks import locked

# The first process validates and writes while the others wait for it. NCCL's own limit, ten
# minutes, would kill the run then; a process that died is noticed without a limit.
_PATIENCE = timedelta(hours=12)
# glibc's mallopt(3): the memory that may lie unused at the heap's end (-1: any), and how many
# allocations may be mappings of their own.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_ANY, _NONE = -1, 0
_KNOWN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def keep_freed_memory() -> None:
    """Let this process keep what it frees for its next allocation; does nothing without glibc.

    On a CPU every update frees and allocates all gradients and activations. glibc gives large ones
    back to the kernel, which has to clear and map the same pages again, thousands in each update.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system or another C library
        return
    mallopt(_M_MMAP_MAX, _NONE)
    mallopt(_M_TRIM_THRESHOLD, _ANY)


def make_accelerator(precision: str) -> Accelerator:
    """Accelerate for one or several plain processes; precision: `no`, `bf16` or `fp16`.

    Raises ConfigError where a launcher asks for what this toolkit does not do.
    """
    # Without a GPU accelerate takes the processes of torchrun for as many runs unless told.
    several_on_cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=several_on_cpu,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    if accelerator.distributed_type not in _KNOWN:
        raise ConfigError(
            f"accelerate is set up for {accelerator.distributed_type}; this toolkit trains in one "
            "or several plain processes: give accelerate launch --num_processes N (and --cpu "
            "where there is no GPU)"
        )
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if told not in ("no", precision):  # `accelerate launch` says `no` where it is told nothing
        raise ConfigError(
            f"accelerate is set up for {told} (--mixed_precision, ACCELERATE_MIXED_PRECISION), and "
            f"optim.precision is {precision}: give --optim.precision {told}, or leave "
            "accelerate's out"
        )
    steps = accelerator.gradient_accumulation_steps
    if steps != 1:  # accelerate would divide every gradient by it
        raise ConfigError(
            f"accelerate is set up for {steps} gradient accumulation steps "
            "(ACCELERATE_GRADIENT_ACCUMULATION_STEPS); leave it at 1 and give "
            f"--optim.accumulation {steps}"
        )
    return accelerator


@contextmanager
def held_output(accelerator: Accelerator, output: Path) -> Iterator[None]:
    """Keep other runs away from a run's folder; every process of the run calls it.

    The lock stands beside the folder, which is replaced as a whole at the end. Raises ConfigError
    in all processes where another run holds it.
    """

    def refusal(holder: str) -> ConfigError:
        return ConfigError(
            f"{output} is in use by another run of fit, {holder}: wait for its end, stop it, or "
            "name another --run.output"
        )

    with ExitStack() as stack:
        refused = [""]
        if accelerator.is_main_process:
            try:
                stack.enter_context(locked(output.parent / f".{output.name}.lock", refusal))
            except MultiTaskError as error:
                refused = [str(error)]
        broadcast_object_list(refused)
        if refused[0]:
            raise ConfigError(refused[0])
        yield
