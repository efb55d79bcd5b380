"""File formats → examples. Every fault is a DataError that names file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from multitask_core.errors import DataError
from multitask_train.data.examples import Example, Span, from_tokens


def read_jsonl(path: Path) -> Iterator[Example]:
    """JSON lines: `text, label, entities [{start, end, type}]` or `tokens, tags, label[, text]`."""
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                with located(path, number):
                    yield example_from_record(_json_object(line))


def read_conll(path: Path) -> Iterator[Example]:
    """CoNLL columns: token first, BIO tag last, blank line between sentences.

    A comment `# label: NAME` before a sentence gives its class.
    """
    with _opened(path) as stream:
        tokens: list[str] = []
        tags: list[str] = []
        label: str | None = None
        number = 0
        for number, line in enumerate(stream, 1):
            columns = line.split()
            if columns and columns[0] == "-DOCSTART-":
                continue
            if line.startswith("# label:"):
                label = line.partition(":")[2].strip()
            elif columns and not (columns[0] == "#" and not tokens):
                with located(path, number):
                    _conll_row(columns, tokens, tags)
            elif tokens:
                with located(path, number - 1):
                    yield from_tokens(tokens, tags, label)
                tokens, tags, label = [], [], None
        if tokens:
            with located(path, number):
                yield from_tokens(tokens, tags, label)


def read_intent_slot(folder: Path) -> Iterator[Example]:
    """A folder with parallel line files `seq.in` (tokens), `seq.out` (BIO tags) and `label`."""
    names = ("seq.in", "seq.out", "label")
    columns = []
    for name in names:
        with _opened(folder / name) as stream:
            columns.append(stream.read().splitlines())
    counts = {name: len(lines) for name, lines in zip(names, columns, strict=True)}
    if len(set(counts.values())) != 1:
        raise DataError(f"{folder}: the files have different numbers of lines: {counts}")
    for number, (tokens, tags, label) in enumerate(zip(*columns, strict=True), 1):
        with located(folder / "seq.in", number):
            yield from_tokens(tokens.split(), tags.split(), label.strip())


def example_from_record(record: Mapping[str, Any]) -> Example:
    """One JSON object → Example; raises DataError without a location."""
    label = record.get("label")
    if "tokens" in record:
        tags = record.get("tags")
        if not isinstance(record["tokens"], list) or not isinstance(tags, (list, type(None))):
            raise DataError("'tokens' and 'tags' must be lists")
        return from_tokens(record["tokens"], tags, label, record.get("text"))
    if "text" not in record:
        raise DataError(f"neither 'text' nor 'tokens' is there; the keys are {sorted(record)}")
    entities = record.get("entities")
    if entities is None:
        return Example(record["text"], label)
    if not isinstance(entities, list):
        raise DataError(f"'entities' must be a list, got {type(entities).__name__}")
    spans = sorted((_span(item) for item in entities), key=lambda span: (span.start, span.end))
    return Example(record["text"], label, tuple(spans))


@contextmanager
def located(path: Path | str, line: int) -> Iterator[None]:
    """Put file and line in front of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}:{line}: {error}") from None


def _json_object(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"no JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"a JSON object is needed, got {type(record).__name__}")
    return record


def _span(item: object) -> Span:
    if not isinstance(item, dict) or not {"start", "end", "type"} <= set(item):
        raise DataError(f"an entity needs start, end and type, got {item!r}")
    start, end = item["start"], item["end"]
    if not isinstance(start, int) or not isinstance(end, int):
        raise DataError(f"entity offsets must be whole numbers, got {start!r}:{end!r}")
    return Span(start, end, item["type"])


def _conll_row(columns: list[str], tokens: list[str], tags: list[str]) -> None:
    if len(columns) < 2:
        raise DataError(f"a row needs a token and a tag, got {columns!r}")
    tokens.append(columns[0])
    tags.append(columns[-1])


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a plain or gzip UTF-8 file, its read errors turned into DataError."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as stream
        ):
            yield stream
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}: convert it first") from error
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
