"""Command lines that answer texts: numbered lines in, one JSON object a line out, faults told.

Shared by `python -m multitask_client` and `python -m multitask_core predict`.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import cast

from multitask_core.errors import ConfigError, MultiTaskError
from multitask_core.prediction import Prediction

GROUP_LINES = 256
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Line:
    """A text and its place, from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class BadLine:
    """A place whose bytes are no text."""

    number: int
    reason: str


Answers = Sequence[Prediction | MultiTaskError]


def run_command(name: str, run: Callable[[], int]) -> int:
    """Run a command line; its errors become one line on standard error and an exit status.

    0 all answered, 1 some not or the server failed, 2 wrong usage, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(encoding="utf-8", errors="replace")
    try:
        return run()
    except MultiTaskError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def answer_texts(
    name: str,
    texts: Sequence[str],
    predict: Callable[[list[str]], Answers],
    *,
    scores: bool = False,
) -> int:
    """Answer the arguments, or standard input where there are none; 1 where any was not answered.

    predict: texts → for each its Prediction, or the error that it alone had.
    scores: print those of all classes.
    """
    if texts:
        return _print_answers(name, [list(argument_lines(texts))], predict, "argument", scores)
    if sys.stdin.isatty():
        print("reading texts, one a line; end with Ctrl-D", file=sys.stderr)
    groups = stream_groups(cast(BufferedReader, sys.stdin.buffer))
    return _print_answers(name, groups, predict, "line", scores)


def argument_lines(texts: Sequence[str]) -> Iterator[Line | BadLine]:
    """Arguments of a program; bytes that were not UTF-8 arrive in them as lone surrogates."""
    for number, text in enumerate(texts, 1):
        yield _line(number, text.encode(errors="surrogateescape"))


def stream_groups(stream: BufferedReader) -> Iterator[list[Line | BadLine]]:
    """Lines of a stream in groups of what has come so far: large for a file, prompt for a pipe.

    Line ends (\\n or \\r\\n) and a leading byte-order mark are taken off.
    """
    number = 0
    for block in _blocks(stream):
        lines = block.split(b"\n")
        if not number:
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        for start in range(0, len(lines), GROUP_LINES):
            part = lines[start : start + GROUP_LINES]
            yield [_line(number + at, data.removesuffix(b"\r")) for at, data in enumerate(part, 1)]
            number += len(part)


def _print_answers(
    name: str,
    groups: Iterable[list[Line | BadLine]],
    predict: Callable[[list[str]], Answers],
    what: str,
    scores: bool,
) -> int:
    status, done = 0, 0
    for group in groups:
        good = [line for line in group if isinstance(line, Line)]
        bad = {line.number: line.reason for line in group if isinstance(line, BadLine)}
        try:
            answers = predict([line.text for line in good])
        except MultiTaskError:
            if done:
                print(f"{name}: no answers after {what} {done}", file=sys.stderr)
            raise
        for line, answer in zip(good, answers, strict=True):
            if isinstance(answer, Prediction):
                print(answer.to_json(line.text, scores=scores))
            else:
                bad[line.number] = str(answer)
        sys.stdout.flush()
        for number, reason in sorted(bad.items()):
            print(f"{what} {number}: {reason}", file=sys.stderr)
        status = 1 if bad else status
        done = group[-1].number
    return status


def _blocks(stream: BufferedReader) -> Iterator[bytes]:
    """Whole lines as they become available, without their last line end."""
    parts: list[bytes] = []
    while data := stream.read1(READ_BYTES):
        head, newline, tail = data.rpartition(b"\n")
        if newline:
            yield b"".join([*parts, head])
            parts = []
        parts.append(tail)
    if rest := b"".join(parts):
        yield rest


def _line(number: int, data: bytes) -> Line | BadLine:
    try:
        return Line(number, data.decode())
    except UnicodeDecodeError as error:
        return BadLine(
            number,
            f"not UTF-8 (byte 0x{data[error.start]:02x} at {error.start}): convert it with iconv",
        )
