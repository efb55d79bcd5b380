"""Predict texts from the command line: `python -m multitask_client --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_client import BadRequest, Client, Prediction, Tls
from multitask_core import signature
from multitask_core.errors import InputError, MultiTaskError
from multitask_core.lines import answer_texts, run_command

_NAME = "multitask_client"
_DESCRIPTION = """\
Classify texts and find their entities on a running server.

Texts come as arguments, or on standard input, one a line. One JSON object a text goes to standard
output, in the order of the input:

  {"text": "...", "label": "...", "score": 0.98,
   "entities": [{"type": "city", "text": "Lyon", "start": 28, "end": 32, "score": 0.99}]}

`start` and `end` count Unicode code points of the text.
"""
_EPILOG = """\
examples:
  python -m multitask_client "book a table for two in Lyon"
  python -m multitask_client --url gpu-1:8001 < texts.txt > answers.jsonl
  tail -f tickets.log | python -m multitask_client | jq .label
  python -m multitask_client --wait 60 --url triton.example.com:443 --tls "cancel my order"

A line that cannot be predicted (blank, too long, not UTF-8) is reported on standard error as
`line N: reason` and the others go on, so no line is lost without a word. Exit status: 0 all
answered, 1 some not or the server failed, 2 wrong usage.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    # gRPC's core logs every lost connection by itself; read when the first client loads it.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    return run_command(_NAME, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    with _client(options) as client:
        if options.wait:
            client.wait_until_ready(options.wait)
        wanted = {"only": options.only, "min_entity_score": options.min_entity_score}
        return answer_texts(
            _NAME,
            options.texts,
            lambda texts: _predict(client, texts, **wanted),
            scores=options.scores,
        )


def _predict(
    client: Client, texts: list[str], *, only: str, min_entity_score: float
) -> list[Prediction | MultiTaskError]:
    """Answers and errors; an error loses its index, since the command names the line itself."""
    return [
        InputError(str(answer).removeprefix(f"text {answer.index}: "))
        if isinstance(answer, BadRequest)
        else answer
        for answer in client.predict_each(texts, only=only, min_entity_score=min_entity_score)
    ]


def _client(options: argparse.Namespace) -> Client:
    tls = Tls(options.ca_file, options.key_file, options.cert_file)
    return Client(
        options.url,
        model=options.model,
        model_version=options.model_version,
        deadline_s=options.deadline,
        tls=tls if options.tls or tls != Tls() else None,
        headers=dict(options.header),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m multitask_client",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="texts; none reads standard input")
    add("--url", default="localhost:8001", help="gRPC endpoint as host:port (default: %(default)s)")
    add("--model", default=signature.TEXT_MODEL, help="model's name (default: %(default)s)")
    add("--model-version", default="", help="version (default: the server's choice)")
    add("--scores", action="store_true", help="print the score of every class")
    add("--only", choices=("label", "entities"), default="", help="ask one head alone")
    add(
        "--min-entity-score",
        type=float,
        default=0.0,
        metavar="P",
        help="leave out entities with a lower score, 0 to 1 (default: %(default)g)",
    )
    add(
        "--deadline",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds that a group of up to 256 texts may take (default: %(default)g)",
    )
    add(
        "--wait",
        type=float,
        default=0.0,
        metavar="S",
        help="first wait up to S seconds for the model to be ready",
    )
    add(
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="sent with every request; may be repeated",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help="encrypt; implied by the files below")
    tls.add_argument("--ca-file", type=Path, help="authorities to trust instead of the system's")
    tls.add_argument("--cert-file", type=Path, help="certificate chain that identifies the client")
    tls.add_argument("--key-file", type=Path, help="its private key")
    return parser  # fmt: skip


def _header(value: str) -> tuple[str, str]:
    name, colon, rest = value.partition(":")
    if not (name.strip() and colon):
        raise argparse.ArgumentTypeError(f"{value!r}: write NAME:VALUE")
    return name.strip(), rest.strip()


if __name__ == "__main__":
    sys.exit(main())
