"""Predict texts from the command line: `python -m multitask_client --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import cast

from multitask_client import Client, Tls
from multitask_client.lines import BadLine, Line, argument_lines, stream_groups
from multitask_core import signature
from multitask_core.errors import ConfigError, MultiTaskError

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
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(encoding="utf-8", errors="replace")
    try:
        return _run(options)
    except ConfigError as error:
        print(f"multitask_client: {error}", file=sys.stderr)
        return 2
    except MultiTaskError as error:
        print(f"multitask_client: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(options: argparse.Namespace) -> int:
    with _client(options) as client:
        if options.wait:
            client.wait_until_ready(options.wait)
        if options.texts:
            return _predict(client, [list(argument_lines(options.texts))], "argument")
        if sys.stdin.isatty():
            print("reading texts, one a line; end with Ctrl-D", file=sys.stderr)
        return _predict(client, stream_groups(cast(BufferedReader, sys.stdin.buffer)), "line")


def _predict(client: Client, groups: Iterable[list[Line | BadLine]], what: str) -> int:
    """Answer group by group; returns 1 where any text was not answered."""
    status, done = 0, 0
    for group in groups:
        good = [line for line in group if isinstance(line, Line)]
        bad = {line.number: line.reason for line in group if isinstance(line, BadLine)}
        try:
            answers = client.predict_each([line.text for line in good])
        except MultiTaskError:
            if done:
                print(f"multitask_client: no answers after {what} {done}", file=sys.stderr)
            raise
        for line, answer in zip(good, answers, strict=True):
            if isinstance(answer, Exception):
                bad[line.number] = str(answer).removeprefix(f"text {answer.index}: ")
            else:
                print(answer.to_json(line.text))
        sys.stdout.flush()
        for number, reason in sorted(bad.items()):
            print(f"{what} {number}: {reason}", file=sys.stderr)
        status = 1 if bad else status
        done = group[-1].number
    return status


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
