"""Inference without a server: `python -m multitask_core predict --artifact DIR TEXT…`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_core.engines import AUTO, ENGINES
from multitask_core.lines import answer_texts, run_command
from multitask_core.pipeline import Pipeline

_NAME = "multitask_core"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return run_command(_NAME, lambda: _predict(options))


def _predict(options: argparse.Namespace) -> int:
    pipeline = Pipeline.from_artifact(
        options.artifact,
        variant=options.variant,
        engine=options.engine,
        device=options.device,
        threads=options.threads,
    )
    return answer_texts(_NAME, options.texts, pipeline.predict_each, scores=options.scores)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m multitask_core", description="Predict in this process, without a server."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict = commands.add_parser(
        "predict",
        help="label texts and find their entities",
        description="One JSON object a line: text, label, score, entities. Texts come as arguments "
        "or on standard input, one a line. A text that cannot be answered is reported on standard "
        "error; the others are answered and the exit status is 1.",
    )
    predict.add_argument("--artifact", type=Path, required=True, help="folder written by export")
    predict.add_argument("--variant", default="", help="graph variant [the artifact's default]")
    predict.add_argument(
        "--engine",
        choices=(AUTO, *ENGINES),
        default="",
        help="runtime; auto: the fastest that passed the gates and runs here [as exported: auto]",
    )
    predict.add_argument("--scores", action="store_true", help="print the score of every class")
    predict.add_argument("--device", default="cpu", help="cpu or cuda [%(default)s]")
    predict.add_argument(
        "--threads", type=int, default=0, help="threads; 0: all CPUs [%(default)s]"
    )
    predict.add_argument(
        "texts", nargs="*", metavar="TEXT", help="texts; without any, standard input is read"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
