"""Runs a command against a server that is up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from multitask_core.errors import ConfigError
from multitask_serve.process import GuardedProcess
from multitask_serve.server import TritonServer
from multitask_serve.signals import Killers

_POLL_S = 0.1
_GRACE_S = 10.0


def check_command(command: list[str]) -> list[str]:
    """Return the command if its program exists: a typing error should not cost a server start."""
    if shutil.which(command[0]) is None:
        raise ConfigError(f"no program {command[0]!r} on PATH: give a command after --")
    return command


def run_command(
    command: list[str],
    server: TritonServer,
    forward: Callable[[list[str]], None],
    killers: Killers,
) -> int:
    """Run the command to its end; return its exit status, 128 + n when signal n ended it.

    `forward` gets the server's warnings. Should the server end first, the command is stopped and
    ServeError raised.
    """
    process = GuardedProcess(
        [_fill_in(argument, server) for argument in command],
        environ={**os.environ, **_variables(server)},
        grace_s=_GRACE_S,
        own_group=False,
    )
    killers.append(process.kill)
    try:
        while (status := process.wait(_POLL_S)) is None:
            forward(server.poll())
        return status
    finally:
        process.terminate()
        process.wait()
        process.close()


def _variables(server: TritonServer) -> dict[str, str]:
    return {
        "MULTITASK_GRPC_URL": server.grpc_url,
        "MULTITASK_HTTP_URL": server.http_url,
        "MULTITASK_METRICS_URL": server.metrics_url,
    }


def _fill_in(argument: str, server: TritonServer) -> str:
    metrics = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    for name, url in (("grpc", server.grpc_url), ("http", server.http_url), ("metrics", metrics)):
        argument = argument.replace(f"{{{name}}}", url)
    return argument
