"""Starts a Triton server for a model repository, and changes the version that it serves.

Until it is stopped, or for as long as a command takes:

    python -m multitask_serve start --repository triton_models --target embedded
    python -m multitask_serve run --repository triton_models -- COMMAND ARGUMENT…

While it runs, without a failed request:

    python -m multitask_serve publish artifacts/new --repository triton_models
    python -m multitask_serve rollback --repository triton_models
    python -m multitask_serve versions --repository triton_models
    python -m multitask_serve status --repository triton_models

Messages go to stderr; the exit status is 1 for an error and 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence

from multitask_core.errors import ConfigError, MultiTaskError
from multitask_serve import arguments, commands
from multitask_serve.command import check_command, run_command
from multitask_serve.ports import Ports
from multitask_serve.repository import tidy_before_start
from multitask_serve.security import Tls
from multitask_serve.server import TritonServer
from multitask_serve.signals import Killers, Stopped, stop_on_signals
from multitask_serve.trace import Trace

_POLL_S = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        run: Callable[[argparse.Namespace], int] = options.function
        return run(options)
    except MultiTaskError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


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
    for message in tidy_before_start(options.repository):
        print(message, file=sys.stderr)
    return TritonServer(
        options.repository,
        options.target,
        ports,
        host=options.host,
        server_env=options.server_env,
        ready_timeout_s=options.ready_timeout,
        drain_timeout_s=options.drain_timeout,
        tls=Tls.from_flags(options.tls_cert, options.tls_key, options.tls_client_ca),
        trace=Trace(options.trace_url, options.trace_rate) if options.trace_url else None,
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
    group = parser.add_subparsers(required=True, metavar="COMMAND")
    start = _add(group, "start", arguments.START_HELP, _start)
    arguments.add_serving_arguments(start)
    arguments.add_port_arguments(start)
    run = _add(group, "run", arguments.RUN_HELP, _run)
    arguments.add_serving_arguments(run)
    run.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    publish = _add(group, "publish", arguments.PUBLISH_HELP, commands.publish_command)
    arguments.add_publish_arguments(publish)
    rollback = _add(group, "rollback", arguments.ROLLBACK_HELP, commands.rollback_command)
    arguments.add_rollback_arguments(rollback)
    versions = _add(group, "versions", arguments.VERSIONS_HELP, commands.versions_command)
    arguments.add_versions_arguments(versions)
    status = _add(group, "status", arguments.STATUS_HELP, commands.status_command)
    arguments.add_status_arguments(status)
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
    return parser
