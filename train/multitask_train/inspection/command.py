"""`python -m multitask_train inspect`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from pathlib import Path

from multitask_core.errors import ConfigError, DataError
from multitask_core.files import write_json
from multitask_core.text import Windowing
from multitask_train import backbones, checkpoint
from multitask_train.data.sources import FORMATS
from multitask_train.inspection.advice import advise
from multitask_train.inspection.corpus import read_splits
from multitask_train.inspection.pieces import Measure
from multitask_train.inspection.report import Report, examine
from multitask_train.inspection.show import render
from multitask_train.settings import ModelSettings

DESCRIPTION = "Look at labelled text before it is trained on.\n\n" + textwrap.fill(
    f"A source is {FORMATS}. Of a folder, a hub id and demo every split is read; a file is one "
    "split, told by its name or by a prefix: dev=my-file.jsonl. The same split of several sources "
    "becomes one, as in fit.",
    90,
    break_on_hyphens=False,
)

EPILOG = """what is told, for every split:
  sentences with a label, with entities, with both; how often each label and type occurs, and
  which of them train, dev or test lack; lengths in words and word pieces; texts that take
  several windows; the padding that batches would have; words that give no word piece, or an
  unknown one; entities that cannot be learned as annotated; BIO tags that continue nothing;
  repeated and contradictory sentences; sentences that stand in two splits; every record that
  cannot be read, with file and line. The last lines say what to do.

exit status:
  0  `fit` can train on this, with other sources where the warnings say what it lacks
  1  it cannot: records or files cannot be read, or a split is empty

examples:
  python -m multitask_train inspect demo
  python -m multitask_train inspect data/snips --json snips.json
  python -m multitask_train inspect train=tickets.jsonl dev=tickets-dev.jsonl
  python -m multitask_train inspect banking77 wnut17 --encoder bert-base-uncased --max-length 128

The last line of standard output is the report as JSON."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `inspect` can be told."""
    model = ModelSettings()
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="labelled text")
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        help="read this split alone; can be given several times [all that exist]",
    )
    parser.add_argument(
        "--encoder",
        default=model.encoder,
        help="whose tokenizer counts word pieces: minilm, a folder or a hub id [%(default)s]",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        default=model.max_length,
        metavar="N",
        help="word pieces in a window, special tokens included [%(default)s]",
    )
    parser.add_argument(
        "--stride",
        type=int,
        default=model.stride,
        metavar="N",
        help="word pieces by which windows overlap [%(default)s]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")


def execute(options: argparse.Namespace) -> None:
    """Read, examine, print. Raises ConfigError, and DataError where `fit` could not train."""
    report = _report(options)
    advice = advise(report)
    faults = [one for one in advice if one.level == "fault"]
    values = {
        **report.to_dict(),
        "advice": [one._asdict() for one in advice],
        "trainable": not faults,
    }
    _print(render(report, advice), json.dumps(values))
    if options.json:
        try:
            write_json(options.json, values)
        except OSError as error:
            raise ConfigError(f"--json {options.json}: cannot write there: {error}") from error
    if faults:
        raise DataError(f"`fit` cannot train on this: {report.faults.first[0]}")


def _print(*parts: str) -> None:
    try:
        print(*parts, sep="\n", flush=True)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(options: argparse.Namespace) -> Report:
    windowing = Windowing(options.max_length, options.stride)
    tokenizer = checkpoint.load_tokenizer(backbones.resolve(options.encoder))
    raw = checkpoint.raw_tokenizer(tokenizer)
    return examine(
        read_splits(options.source, options.split),
        Measure(raw, tokenizer.unk_token, windowing),
        sources=options.source,
        encoder=options.encoder,
        windowing=windowing,
    )
