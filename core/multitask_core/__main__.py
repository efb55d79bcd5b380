"""Inference without a server: `python -m multitask_core predict --artifact DIR TEXT…`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from multitask_core.errors import InputError, MultiTaskError
from multitask_core.pipeline import Pipeline

CHUNK = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        pipeline = Pipeline.from_artifact(
            options.artifact,
            variant=options.variant,
            device=options.device,
            threads=options.threads,
        )
        return _predict(pipeline, iter(options.text) if options.text else _stdin_lines())
    except MultiTaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _predict(pipeline: Pipeline, texts: Iterator[str]) -> int:
    status = number = 0
    while chunk := list(islice(texts, CHUNK)):
        for text, answer in zip(chunk, pipeline.predict_each(chunk), strict=True):
            number += 1
            if isinstance(answer, InputError):
                print(f"error: text {number}: {answer}", file=sys.stderr)
                status = 1
            else:
                print(answer.to_json(text))
    return status


def _stdin_lines() -> Iterator[str]:
    # Bytes that are no UTF-8 become lone surrogates, which the pipeline refuses with a clear error.
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")  # type: ignore[union-attr]
    for line in sys.stdin:
        yield line.rstrip("\r\n")


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
    predict.add_argument("--device", default="cpu", help="cpu or cuda [%(default)s]")
    predict.add_argument(
        "--threads", type=int, default=0, help="threads; 0: all CPUs [%(default)s]"
    )
    predict.add_argument("text", nargs="*", help="texts; without any, standard input is read")
    return parser


if __name__ == "__main__":
    sys.exit(main())
