"""Starts a Triton server for a model repository.

Until it is stopped, or for as long as a command takes:

    python -m multitask_serve start --repository triton_models --target embedded
    python -m multitask_serve run --repository triton_models -- COMMAND ARGUMENT…

Messages go to stderr; the exit status is 1 for an error and 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from multitask_core.errors import ConfigError, MultiTaskError
from multitask_serve.command import check_command, run_command
from multitask_serve.ports import Ports
from multitask_serve.repository import TARGETS
from multitask_serve.server import TritonServer
from multitask_serve.signals import Killers, Stopped, stop_on_signals

_POLL_S = 0.2

_START_HELP = """Serve until SIGINT or SIGTERM.

When everything is ready, the last line on stdout is one JSON object:
{"pid": …, "grpc": "host:port", "http": "host:port", "metrics": "http://host:port/metrics",
"models": […], "log": "path"}; pid is this process, to be sent SIGTERM. The first signal finishes
the requests in flight and ends with status 0, a second one kills the server. Warnings and errors of
the running server go to stderr, its whole log to ~/.cache/multitask-transformer/logs."""

_RUN_HELP = """Run COMMAND against a server on free ports.

COMMAND finds the server in MULTITASK_GRPC_URL and MULTITASK_HTTP_URL (host:port) and
MULTITASK_METRICS_URL (http://host:port/metrics); {grpc}, {http} and {metrics} in its arguments
become host:port. The server stops when COMMAND ends, whose exit status is passed on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], int] = options.function
        return run(options)
    except MultiTaskError as error:
        print(error, file=sys.stderr)
        return 1


def _start(options: argparse.Namespace) -> int:
    server = _server(options, Ports(options.grpc_port, options.http_port, options.metrics_port))
    stop_on_signals([server.kill])
    try:
        with server:
            _announce(server)
            while True:
                time.sleep(_POLL_S)
                _forward(server.poll())
    except Stopped:
        return 0


def _run(options: argparse.Namespace) -> int:
    command = check_command(options.command)
    server = _server(options, Ports())
    killers: Killers = [server.kill]
    stop_on_signals(killers)
    try:
        with server:
            _forward(server.problems())
            return run_command(command, server, _forward, killers)
    except Stopped as stopped:
        return 128 + stopped.number


def _server(options: argparse.Namespace, ports: Ports) -> TritonServer:
    if options.ready_timeout <= 0 or options.drain_timeout < 0:
        raise ConfigError("--ready-timeout must be above 0 s and --drain-timeout 0 s or more")
    return TritonServer(
        options.repository,
        options.target,
        ports,
        host=options.host,
        server_env=options.server_env,
        ready_timeout_s=options.ready_timeout,
        drain_timeout_s=options.drain_timeout,
        server_args=[f"--log-verbose={options.log_verbose}", *options.server_arg],
    )


def _announce(server: TritonServer) -> None:
    _forward(server.problems())
    print(f"ready: {', '.join(server.models)} ({server.target})")
    print(f"  gRPC     {server.grpc_url}")
    print(f"  HTTP     http://{server.http_url}")
    print(f"  metrics  {server.metrics_url}")
    print(f"  log      {server.log_path}")
    facts = {
        "pid": os.getpid(),
        "grpc": server.grpc_url,
        "http": server.http_url,
        "metrics": server.metrics_url,
        "models": server.models,
        "log": str(server.log_path),
    }
    print(json.dumps(facts), flush=True)


def _forward(problems: list[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m multitask_serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{start,run}")
    start = _add(commands, "start", _START_HELP, _start)
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        start.add_argument(
            f"--{name}-port", type=int, default=port, metavar="N", help=f"0: any free; {port}"
        )
    run = _add(commands, "run", _RUN_HELP, _run)
    run.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    description: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=description.splitlines()[0],
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(function=function)
    add = parser.add_argument
    add("--repository", type=Path, required=True, metavar="DIR", help="served in place")
    add("--target", choices=TARGETS, default="embedded", help="default: %(default)s")
    add("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    add("--server-env", type=Path, metavar="DIR", help="holds nvidia-pytriton (embedded only)")
    add("--ready-timeout", type=float, default=120.0, metavar="S", help="default: %(default)g s")
    add("--drain-timeout", type=float, default=30.0, metavar="S", help="default: %(default)g s")
    add("--log-verbose", type=int, default=0, metavar="N", help="Triton's verbosity; default: 0")
    add(
        "--server-arg",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of tritonserver's own, as in --server-arg=--rate-limit=off; paths must be "
        "absolute; repeatable",
    )
    return parser
