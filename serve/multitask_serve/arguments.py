"""What the commands are called, explain of themselves and take."""

from __future__ import annotations

import argparse
from pathlib import Path

from multitask_serve.compare import Budget
from multitask_serve.repository import TARGETS
from multitask_serve.security import TOKEN_VARIABLE

START_HELP = """Serve until SIGINT or SIGTERM.

When everything is ready, the last line on stdout is one JSON object:
{"pid": …, "grpc": "host:port", "http": "host:port", "metrics": "http://host:port/metrics",
"models": […], "log": "path"}; pid is this process, to be sent SIGTERM. The first signal finishes
the requests in flight and ends with status 0, a second one kills the server. Warnings and errors of
the running server go to stderr, its whole log to ~/.cache/multitask-transformer/logs.

Loading models, shared memory, tracing and logging are closed over the network to all who do not
send the admin token, $MULTITASK_ADMIN_TOKEN or a random one; publish, rollback and status of the
same user find it in ~/.cache/multitask-transformer/servers."""

RUN_HELP = """Run COMMAND against a server on free ports.

COMMAND finds the server in MULTITASK_GRPC_URL and MULTITASK_HTTP_URL (host:port) and
MULTITASK_METRICS_URL (http://host:port/metrics); {grpc}, {http} and {metrics} in its arguments
become host:port. The server stops when COMMAND ends, whose exit status is passed on."""

PUBLISH_HELP = """Make an artifact the next version, and live if it answers like the live one.

The artifact is checked against its manifest and linted, written as version N+1 of both models and
loaded beside the live version, which goes on answering. Both are asked for the same sentences;
where more labels or entities change than allowed, or the new one is slower than allowed, it is
unloaded and deleted again and the exit status is 1. Else the server switches to it without failing
a request.

Without a running server the version is not compared; the next start serves it. The last line on
stdout is one JSON object."""

ROLLBACK_HELP = """Make an older version live again, by default the one that was live before.

The last line on stdout is one JSON object."""

VERSIONS_HELP = """List the versions of a repository: which is live, where each came from."""

STATUS_HELP = """Show a running server: health, versions, requests, times, batches.

Counters are those since a version was loaded; times are means of one request in ms. The exit status
is 1 where the server is not ready."""


def add_serving_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `start` and `run` share."""
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
    add(
        "--tls-cert",
        type=Path,
        metavar="FILE",
        help="PEM: encrypt gRPC. Triton has no TLS for "
        "HTTP and metrics, which then listen on 127.0.0.1 alone",
    )
    add("--tls-key", type=Path, metavar="FILE", help="PEM: the certificate's key")
    add(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="PEM: let in only clients with a certificate of this authority (mutual TLS)",
    )
    add(
        "--trace-url",
        metavar="URL",
        help="send OpenTelemetry traces there, such as http://localhost:4318/v1/traces",
    )
    add(
        "--trace-rate",
        type=int,
        default=1000,
        metavar="N",
        help="trace one request in N; default: %(default)s",
    )


def add_port_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the ports of `start`."""
    for name, port in (("grpc", 8001), ("http", 8000), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="N", help=f"0: any free; {port}"
        )


def add_publish_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `publish`."""
    budget = Budget()
    add = parser.add_argument
    add("artifact", type=Path, metavar="ARTIFACT", help="folder written by multitask_export")
    add_server_arguments(parser)
    add(
        "--sentences",
        type=Path,
        metavar="FILE",
        help="JSON lines to compare on (text, label, entities); default: the artifact's own",
    )
    for flag, value, what in (
        ("--max-label-changes", budget.labels, "largest share of changed labels"),
        ("--max-entity-changes", budget.entities, "largest share of changed entity lists"),
        ("--max-latency-ratio", budget.latency, "largest ratio of median latencies"),
    ):
        add(flag, type=float, default=value, metavar="X", help=f"{what}; default: {value:g}")
    add("--force", metavar="REASON", help="switch in spite of the budgets; the reason is kept")
    add(
        "--keep",
        type=int,
        default=3,
        metavar="N",
        help="versions to keep, the live one and the one before in any case; default: 3",
    )


def add_rollback_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `rollback`."""
    add_server_arguments(parser)
    parser.add_argument("--to", type=int, metavar="N", help="default: the one live before")


def add_versions_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `versions`."""
    _add_repository(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON array")


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `status`."""
    add_server_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how the server is found and spoken to."""
    _add_repository(parser)
    add = parser.add_argument
    add(
        "--url",
        metavar="HOST:PORT",
        help=f"the server's gRPC address, its admin token in ${TOKEN_VARIABLE}; default: the one "
        "that this user started on the repository",
    )
    add("--tls-ca", type=Path, metavar="FILE", help="PEM: whom to trust; default: the server's own")
    add("--tls-client-cert", type=Path, metavar="FILE", help="PEM, where the server asks for one")
    add("--tls-client-key", type=Path, metavar="FILE", help="PEM: its key")
    add("--load-timeout", type=float, default=600.0, metavar="S", help="default: %(default)g s")


def _add_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repository", type=Path, required=True, metavar="DIR", help="the model repository"
    )
