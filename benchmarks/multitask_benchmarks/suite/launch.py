"""One scenario in a process of its own: its memory, threads and crashes are not the next one's."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from multitask_core.errors import MultiTaskError


def launch(arguments: Sequence[str]) -> str:
    """Run a command; returns what went wrong, "" where nothing did.

    Ctrl-C reaches both processes: the command ends in its own way before this one goes on.
    """
    context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(tuple(arguments), sender))
    process.start()
    sender.close()
    try:
        # Before the join: a message longer than the pipe holds keeps the process from ending.
        wait([receiver, process.sentinel])
        said = _receive(receiver)
    finally:
        process.join()
    return said if said is not None else _ended(process.exitcode)


def _receive(receiver: Connection) -> str | None:
    with contextlib.suppress(EOFError):
        if receiver.poll():
            return str(receiver.recv())
    return None


def _ended(exitcode: int | None) -> str:
    if exitcode and exitcode < 0:
        return f"its process was ended by {signal.Signals(-exitcode).name}"
    return f"its process ended with status {exitcode}"


def _work(arguments: Sequence[str], sender: Connection) -> None:
    """In the new process: send "" or the error."""
    # The commands import this package's `run`, which imports this module.
    from multitask_benchmarks.__main__ import run_command

    try:
        status = run_command(arguments)
        sender.send(f"ended with status {status}" if status else "")
    except (MultiTaskError, OSError) as error:
        sender.send(str(error))
    except KeyboardInterrupt:
        sender.send("stopped")
    except Exception as error:  # noqa: BLE001  a fault in one scenario must not end the others
        traceback.print_exc()
        sender.send(f"{type(error).__name__}: {error}")
