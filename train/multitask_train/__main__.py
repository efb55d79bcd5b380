"""`python -m multitask_train fit | evaluate | inspect | compare | corpus`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_core.config import describe, load
from multitask_core.errors import MultiTaskError
from multitask_train.comparison import command as comparison
from multitask_train.data.sources import FORMATS
from multitask_train.inspection import command as inspection
from multitask_train.interrupt import InterruptedRunError
from multitask_train.launch import follow_launcher, start_missing_processes
from multitask_train.settings import FitSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run not in (_fit, comparison.run):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options.run(options, rest)
    except InterruptedRunError as error:
        print(error, file=sys.stderr)
        return error.status
    except MultiTaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _fit(options: argparse.Namespace, rest: list[str]) -> None:
    settings = load(FitSettings, options.config, rest)
    follow_launcher()
    start_missing_processes(sys.argv[1:])
    # Accelerate and TensorBoard load slowly: --help and a faulty file do without them.
    from multitask_train.fit import fit

    if metrics := fit(settings):  # empty in all processes but the first
        print(json.dumps(metrics))


def _evaluate(options: argparse.Namespace, _: list[str]) -> None:
    from multitask_train.data import read_examples
    from multitask_train.evaluate import describe as describe_metrics
    from multitask_train.evaluate import evaluate_checkpoint

    examples = read_examples(options.data, options.split)
    metrics = evaluate_checkpoint(options.checkpoint, examples)
    print(describe_metrics(metrics))
    print(json.dumps(metrics))


def _corpus(options: argparse.Namespace, _: list[str]) -> None:
    from multitask_train import demo_corpus

    for split, path in demo_corpus.write(options.output).items():
        print(f"{split}: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m multitask_train",
        description="Labelled text → a checkpoint with a sentence head and an entity head.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fit = commands.add_parser(
        "fit",
        help="train a checkpoint",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a checkpoint from a settings file; any setting can be given again as\n"
        "--section.key value. The last line of standard output is the metrics as JSON.\n\n"
        f"A data source is {FORMATS}.",
        epilog="settings [default]:\n" + "\n".join(describe(FitSettings)),
    )
    fit.add_argument("--config", type=Path, help="YAML file, e.g. train/configs/demo.yaml")
    fit.set_defaults(run=_fit)
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a checkpoint on labelled text",
        description="Prints the metrics for people, then as JSON on the last line. A data source "
        f"is {FORMATS}.",
    )
    evaluate.add_argument("--checkpoint", type=Path, required=True, help="folder written by fit")
    evaluate.add_argument("--data", required=True, help="labelled text")
    evaluate.add_argument(
        "--split", default="test", help="which part of a folder or hub id [%(default)s]"
    )
    evaluate.set_defaults(run=_evaluate)
    inspect = commands.add_parser(
        "inspect",
        help="look at labelled text: counts, lengths, overlaps, faults",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=inspection.DESCRIPTION,
        epilog=inspection.EPILOG,
    )
    inspection.add_arguments(inspect)
    inspect.set_defaults(run=lambda options, _: inspection.execute(options))
    compare = commands.add_parser(
        "compare", help="train strategies, balancers and seeds against each other"
    )
    comparison.add_arguments(compare)
    compare.set_defaults(run=comparison.run)
    corpus = commands.add_parser("corpus", help="write the demo corpus as JSON lines")
    corpus.add_argument("--output", type=Path, default=Path("data/demo"), help="[%(default)s]")
    corpus.set_defaults(run=_corpus)
    return parser


if __name__ == "__main__":
    sys.exit(main())
