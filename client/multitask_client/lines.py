"""Texts for the command line: numbered lines of a stream, decoded one by one, in prompt groups."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader

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
