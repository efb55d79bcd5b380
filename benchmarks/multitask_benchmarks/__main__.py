"""`python -m multitask_benchmarks COMMAND`: see `--help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from multitask_benchmarks import (
    accuracy,
    demo,
    export_time,
    peers,
    stages,
    untrained,
    variants,
    verify,
)
from multitask_benchmarks.comparison import command as comparison
from multitask_benchmarks.engines import command as engines
from multitask_benchmarks.reporting import command as reporting
from multitask_benchmarks.serving import command as serving
from multitask_benchmarks.suite import command as suite
from multitask_benchmarks.training import command as training
from multitask_core.errors import MultiTaskError

_COMMANDS = {
    "run": (suite, "run the scenarios of a file, one after the other"),
    "compare": (comparison, "say what got better or worse between two result files"),
    "report": (reporting, "one page of results, and the README's tables"),
    "stages": (stages, "time the server, the artifact in process and the checkpoint, interleaved"),
    "serving": (serving, "put a server of its own under load, alone or beside others"),
    "peers": (peers, "make the environments of the other servers"),
    "training": (training, "time the training loop against the Hugging Face Trainer"),
    "accuracy": (accuracy, "record what training runs reached, over their seeds"),
    "engines": (engines, "time the model alone: torch, ONNX Runtime, OpenVINO, TensorRT"),
    "export-time": (export_time, "time the export with its gates, each in a process of its own"),
    "variants": (variants, "record what the export measured, and print it as a table"),
    "verify": (verify, "compare every answer of the server with the checkpoint's own"),
    "untrained": (untrained, "write a checkpoint with random weights, for speed and parity"),
    "demo": (demo, "show sentences with their entities, and the latency of one call"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    try:
        return run_command(arguments)
    except (MultiTaskError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def run_command(arguments: Sequence[str] | None = None) -> int:
    """The same, with errors raised."""
    options = make_parser().parse_args(arguments)
    # gRPC's core logs every lost connection by itself; read when the first client loads it.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    execute: Callable[[argparse.Namespace], int] = options.execute
    return execute(options)


def make_parser() -> argparse.ArgumentParser:
    """Every command; `parser` in their options is this parser itself."""
    parser = argparse.ArgumentParser(
        "python -m multitask_benchmarks",
        description="How fast and how faithful the served model is. Tables are for people; the "
        "last line of standard output is one JSON object.",
    )
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(execute=module.execute, kind=name)
    return parser


if __name__ == "__main__":
    sys.exit(main())
