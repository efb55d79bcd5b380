"""File formats → examples with their places. Every fault is a DataError that names file and line.

A reader goes on after a faulty record: the error is yielded in the record's place. What makes the
rest of a file unreadable (a cut archive, parallel files that do not fit) is raised.
"""

from __future__ import annotations

import difflib
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitask_core.errors import DataError
from multitask_core.labels import bio_spans, split_tag
from multitask_train.data.examples import Example, Located, Read, Span, attempt, from_tokens

# The parallel files of one corpus: tokens, BIO tags, classes.
INTENT_SLOT = ("seq.in", "seq.out", "label")
_LABEL = "# label:"
# Likeness from which a key of a JSON record counts as misspelt: `lable` has 0.8 to `label`.
_NEAR = 0.8
_BIO = re.compile("O|[BI]-.+")
_TAG_KEYS = ("ner_tags", "bio_tags", "iob_tags")


def read_jsonl(path: Path) -> Iterator[Read]:
    """JSON lines: `text, label, entities [{start, end, type}]` or `tokens, tags, label[, text]`."""
    for number, line in _lines(path):
        if isinstance(line, DataError):
            yield line
        elif line.strip():
            place = f"{path}:{number}"
            yield attempt(place, _located_json, place, line)


def read_conll(path: Path) -> Iterator[Read]:
    """CoNLL columns, apart by spaces or tabs: token first, BIO tag last.

    A sentence ends at a blank line, at `-DOCSTART-` and before a comment `# label: NAME`, which
    gives the class of the sentence below it. A token may be `#` or begin with it; so a line is any
    other comment only if it is one column that begins with `#` (`#begin`), or if its first column
    is `#` and its last no BIO tag (`# sent_id = 5`). A sentence with a faulty row is left out.
    """
    for one in _sentences(path):
        if isinstance(one, DataError):
            yield one
        else:
            place = f"{path}:{one.first}"
            tokens, tags = [token for token, _ in one.rows], [tag for _, tag in one.rows]
            yield attempt(place, _located_tokens, place, tokens, tags, one.label)


def read_intent_slot(folder: Path) -> Iterator[Read]:
    """A folder with parallel line files `seq.in` (tokens), `seq.out` (BIO tags) and `label`."""
    columns = [[line for _, line in _lines(folder / name)] for name in INTENT_SLOT]
    counts = {name: len(lines) for name, lines in zip(INTENT_SLOT, columns, strict=True)}
    if len(set(counts.values())) != 1:
        raise DataError(
            f"{folder}: the files have different numbers of lines: {counts}; line N of each must "
            "belong to the same sentence"
        )
    for number, lines in enumerate(zip(*columns, strict=True), 1):
        faults = [line for line in lines if isinstance(line, DataError)]
        if faults:
            yield from faults
            continue
        tokens, tags, label = (line for line in lines if isinstance(line, str))
        yield _parallel(folder, number, _columns(tokens), _columns(tags), label.strip())


def _parallel(folder: Path, number: int, tokens: list[str], tags: list[str], label: str) -> Read:
    """One sentence of three files; what is wrong with a file's line by itself names that file."""
    own_faults = (
        attempt(f"{folder / 'seq.out'}:{number}", bio_spans, tags),
        attempt(f"{folder / 'label'}:{number}", Example, "any text", label),
    )
    for fault in own_faults:
        if isinstance(fault, DataError):
            return fault
    place = f"{folder / 'seq.in'}:{number}"
    return attempt(place, _located_tokens, place, tokens, tags, label)


def located_record(place: str, record: Mapping[str, Any]) -> Located:
    """One JSON object with its place; raises DataError without a location."""
    example = example_from_record(record)
    tags = record.get("tags") if "tokens" in record else None
    return Located(place, example, None if tags is None else tuple(tags))


def example_from_record(record: Mapping[str, Any]) -> Example:
    """One JSON object → Example; raises DataError without a location."""
    _check_keys(record)
    label = record.get("label")
    if "tokens" in record:
        tags = record.get("tags")
        if not isinstance(record["tokens"], list) or not isinstance(tags, (list, type(None))):
            raise DataError("'tokens' and 'tags' must be lists")
        return from_tokens(record["tokens"], tags, label, record.get("text"))
    if "text" not in record:
        raise DataError(
            f"neither 'text' nor 'tokens' is there; the keys are {sorted(record)}: rename the one "
            "that holds the sentence"
        )
    entities = record.get("entities")
    if entities is None:
        return Example(record["text"], label)
    if not isinstance(entities, list):
        raise DataError(f"'entities' must be a list, got {type(entities).__name__}")
    spans = sorted((_span(item) for item in entities), key=lambda span: (span.start, span.end))
    return Example(record["text"], label, tuple(spans))


def _located_json(place: str, line: str) -> Located:
    return located_record(place, _json_object(line))


def _located_tokens(place: str, tokens: list[str], tags: list[str], label: str | None) -> Located:
    return Located(place, from_tokens(tokens, tags, label), tuple(tags))


def _json_object(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = str(error)
        if isinstance(error, json.JSONDecodeError):  # its own text says "line 1" of every line
            why = f"{error.msg} at character {error.colno}"
        raise DataError(f"no JSON: {why}; write one whole JSON object a line") from None
    if not isinstance(record, dict):
        raise DataError(
            f"a JSON object is needed, got {type(record).__name__}; write one such as "
            '{"text": …, "label": …}'
        )
    return record


def _check_keys(record: Mapping[str, Any]) -> None:
    """Raise DataError where an annotation would be lost under a misspelt key, or with tokens.

    Keys that are like none that is read, or hold another type, are the corpus's own and ignored.
    """
    if "tokens" in record and "tags" not in record and record.get("entities") is not None:
        raise DataError("'entities' belong to 'text'; give 'tags' to 'tokens', or leave them out")
    read = {"label": str, "tags" if "tokens" in record else "entities": list}
    absent = [key for key in read if key not in record]
    for key, value in record.items():
        near = difflib.get_close_matches(key.lower(), absent, 1, _NEAR)
        if near and isinstance(value, read[near[0]]):
            raise DataError(
                f"there is {key!r} and no {near[0]!r}: rename it if that is meant, else name it "
                "otherwise or leave it out"
            )
    if all(record.get(key) is None for key in ("tags", "entities") if key in read):
        for key, value in record.items():
            if key not in read and isinstance(value, list) and _are_tags(key, value, record):
                raise DataError(
                    f"{key!r} holds the tags of words and is not read: give them as 'tags' beside "
                    "'tokens', in words such as 'B-city' and 'O', or leave them out"
                )


def _are_tags(key: str, values: list[object], record: Mapping[str, Any]) -> bool:
    """One for each word, and BIO or what the hub's corpora call so, numbers mostly."""
    tokens = record["tokens"] if "tokens" in record else str(record.get("text", "")).split()
    if not isinstance(tokens, list) or not 0 < len(values) == len(tokens):
        return False
    words = [value for value in values if isinstance(value, str)]
    bio = len(words) == len(values) and all(map(_BIO.fullmatch, words))
    return (bio and any(word != "O" for word in words)) or key.lower() in _TAG_KEYS


def _span(item: object) -> Span:
    if not isinstance(item, dict) or not {"start", "end", "type"} <= set(item):
        raise DataError(f"an entity needs start, end and type, got {item!r}")
    start, end = item["start"], item["end"]
    if not isinstance(start, int) or not isinstance(end, int):
        raise DataError(f"entity offsets must be whole numbers, got {start!r}:{end!r}")
    return Span(start, end, item["type"])


@dataclass
class _Sentence:
    """A sentence of a CoNLL file: its first row's line, its (token, tag) rows, its class."""

    first: int = 0
    rows: list[tuple[str, str]] = field(default_factory=list)
    label: str | None = None
    broken: bool = False

    @property
    def complete(self) -> bool:
        return bool(self.rows) and not self.broken


def _sentences(path: Path) -> Iterator[_Sentence | DataError]:
    """Whole sentences, and the faults of single lines, whose sentences do not come."""
    sentence = _Sentence()
    for number, line in _lines(path):
        if isinstance(line, DataError):
            yield line
            sentence.broken = True
            continue
        columns = _columns(line)
        names_class = line.startswith(_LABEL)
        if names_class or not columns or columns[0] == "-DOCSTART-":
            if sentence.complete:
                yield sentence
            if sentence.rows or sentence.broken:
                sentence = _Sentence()
            if names_class:
                sentence.label = line.removeprefix(_LABEL).strip()
        elif not _is_comment(columns):
            row = attempt(f"{path}:{number}", _conll_row, columns)
            if isinstance(row, DataError):
                yield row
            _append(sentence, number, row)
    if sentence.complete:
        yield sentence


def _append(sentence: _Sentence, number: int, row: tuple[str, str] | DataError) -> None:
    if isinstance(row, DataError):
        sentence.broken = True
    else:
        sentence.first = sentence.first or number
        sentence.rows.append(row)


def _is_comment(columns: list[str]) -> bool:
    if len(columns) == 1:
        return columns[0].startswith("#")
    return columns[0] == "#" and not _is_tag(columns[-1])


def _is_tag(column: str) -> bool:
    try:
        split_tag(column)
    except DataError:
        return False
    return True


def _conll_row(columns: list[str]) -> tuple[str, str]:
    if len(columns) < 2:
        raise DataError(f"a row needs a token and a tag, got {columns!r}")
    split_tag(columns[-1])  # here, so that a wrong tag is named with its own line
    return columns[0], columns[-1]


def _columns(line: str) -> list[str]:
    """Cut at spaces and tabs alone: a token may hold a no-break space or U+2028."""
    return [column for part in re.split("[ \t]", line) if (column := part.strip())]


def _lines(path: Path) -> Iterator[tuple[int, str | DataError]]:
    """Number and text of every line of a plain or gzip file; `\\n` and `\\r\\n` end a line.

    Bytes are cut before they are decoded, so that a fault is found in its line and no other
    character that Unicode calls a line break cuts a text in two.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield number, attempt(f"{path}:{number}", _decoded, line, number)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}:{number + 1}: cannot read the file: {error}; copy or make it again"
        ) from error


def _decoded(line: bytes, number: int) -> str:
    try:
        # Windows programs put a byte order mark before the first line.
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 at byte {error.start + 1} of the line; convert the file first"
        ) from None
    if "\r" in text:
        raise DataError("a carriage return inside the line; end lines with \\n or \\r\\n")
    return text
