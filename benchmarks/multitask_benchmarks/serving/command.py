"""Load the server in the ways that production does, and write down how it behaves.

    python -m multitask_benchmarks serving throughput --repository triton_models \\
        --checkpoint runs/demo --data data/demo/test.jsonl

Each scenario starts its own server on free ports, some can take one that runs already (--url). It
shows its progress on standard error, prints tables and, as the last line of standard output, one
JSON object, and writes its part of `<output>/<model>_<hardware>_<yyyymm>.json`. Ctrl-C stops the
servers too.
Load and server share the machine's cores: results say what the load itself cost. Nothing else
should run; compare figures within one run rather than between runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import ModuleType

from multitask_benchmarks.recording import add_result_arguments
from multitask_benchmarks.serving import (
    cross_check,
    max_rate,
    mixed,
    overload,
    profile,
    rates,
    rollover,
    soak,
    start,
    throughput,
)

_SCENARIOS: dict[str, tuple[ModuleType, str]] = {
    "throughput": (throughput, "requests/s, latency and CPU against other servers"),
    "rates": (rates, "latency by rate, Poisson arrivals"),
    "max-rate": (max_rate, "the highest rate at which 99 %% are answered in time"),
    "start": (start, "cold start: to ready, to the first answer, memory"),
    "cross-check": (cross_check, "the same load from NVIDIA's perf_analyzer"),
    "profile": (profile, "where a saturated server's CPU goes, and the encoder's own limit"),
    "mixed": (mixed, "what long texts do to the latency of short ones"),
    "rollover": (rollover, "publish and roll back under load: failures, and whose answers"),
    "overload": (overload, "three times the capacity, and the recovery from it"),
    "soak": (soak, "half load for long: memory and latency over time"),
}
_SEVERAL = (throughput, rates, max_rate, start)
_RUNNING = (throughput, rates, max_rate)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command for each scenario."""
    commands = parser.add_subparsers(required=True, metavar="SCENARIO", dest="scenario")
    for name, (module, summary) in _SCENARIOS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module is not rollover:  # which writes its own
            _add_repository(command, several=module in _SEVERAL, running=module in _RUNNING)
        module.add_arguments(command)
        _add_common(command)
        command.set_defaults(function=module.execute, kind=f"serving {name}")


def execute(options: argparse.Namespace) -> int:
    """Run the chosen scenario; returns its exit status."""
    run: Callable[[argparse.Namespace], int] = options.function
    return run(options)


def _add_repository(parser: argparse.ArgumentParser, *, several: bool, running: bool) -> None:
    parser.add_argument(
        "--repository",
        required=not running,
        default=[] if running else None,
        metavar="[NAME=]DIR",
        action="append" if several else "store",
        help="model repository to serve, for the embedded target"
        + ("; may be repeated, each with a NAME for its row" if several else ""),
    )
    if running:
        parser.add_argument(
            "--url",
            metavar="[NAME=]HOST:PORT",
            action="append",
            default=[],
            help="gRPC endpoint, without TLS, of a Triton that runs already, on a GPU for one; "
            "beside --repository or in its place",
        )


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", required=True, help="texts to send: JSONL, CoNLL, .gz too")
    add("--texts", type=int, default=512, help="how many of them (default: %(default)s)")
    add_result_arguments(parser)
