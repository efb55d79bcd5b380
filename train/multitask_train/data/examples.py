"""One labelled sentence, checked when it is made, and where it stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

from multitask_core.errors import DataError
from multitask_core.files import write_text
from multitask_core.labels import bio_spans
from multitask_core.text import text_fault

P = ParamSpec("P")
T = TypeVar("T")


class Span(NamedTuple):
    """An entity in the text: code points [start, end) and its type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class Example:
    """A text with the annotation that its corpus gives.

    label: None where the corpus classifies nothing. entities: None where it marks no entities, an
    empty tuple where it says there are none. words: the corpus's own tokens as spans, the units in
    which seqeval counts; None where the corpus marks characters.
    Raises DataError that says what is wrong; the reader adds file and line.
    """

    text: str
    label: str | None = None
    entities: tuple[Span, ...] | None = None
    words: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        _check_text(self.text)
        if self.label is not None and not _is_name(self.label):
            raise DataError(
                f"label {self.label!r} is no name; give non-blank, trimmed text, or leave it out"
            )
        if self.label is None and self.entities is None:
            raise DataError(
                "neither a label nor entities are given; annotate the example or remove it"
            )
        for span in self.entities or ():
            _check_span(self.text, span)
        for left, right in pairwise(self.entities or ()):
            if right.start < left.end:
                raise DataError(
                    f"entities {left.start}:{left.end} ({left.type}) and {right.start}:{right.end} "
                    f"({right.type}) overlap; one word can carry one entity: keep one of them"
                )


class Located(NamedTuple):
    """An example, its place (`file:line`) and its BIO tags as they are written, if it has any."""

    place: str
    example: Example
    tags: tuple[str, ...] | None


# What a reader gives for each record: the example, or the fault, which names its place.
Read: TypeAlias = Located | DataError


def attempt(
    place: str, make: Callable[P, T], *arguments: P.args, **named: P.kwargs
) -> T | DataError:
    """What `make` returns, or the DataError that it raised with the place put in front."""
    try:
        return make(*arguments, **named)
    except DataError as error:
        return DataError(f"{place}: {error}")


def write_jsonl(path: Path, examples: Iterable[Example]) -> None:
    """Write examples as JSON lines that `read_examples` reads; corpus tokens are left out."""
    lines = []
    for example in examples:
        record: dict[str, object] = {"text": example.text}
        if example.label is not None:
            record["label"] = example.label
        if example.entities is not None:
            record["entities"] = [span._asdict() for span in example.entities]
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def from_tokens(
    tokens: Sequence[str], tags: Sequence[str] | None, label: str | None, text: str | None = None
) -> Example:
    """An example from tokens and BIO tags; without `text` the tokens are joined by spaces.

    Raises DataError when counts differ, a token or tag is no text, a tag is no BIO tag or a token
    is not found in the text.
    """
    if not tokens or not all(isinstance(token, str) and token.strip() for token in tokens):
        raise DataError("'tokens' must be a list of non-blank strings")
    if tags is not None and len(tags) != len(tokens):
        raise DataError(f"{len(tokens)} tokens but {len(tags)} tags; each token needs one tag")
    if wrong := [tag for tag in tags or () if not isinstance(tag, str)]:
        raise DataError(f"'tags' must be a list of strings such as B-city, got {wrong[0]!r} in it")
    text = " ".join(tokens) if text is None else text
    _check_text(text)
    words = _locate(tokens, text)
    entities = None
    if tags is not None:
        spans = bio_spans(tags)
        entities = tuple(Span(words[a][0], words[b - 1][1], name) for a, b, name in spans)
    return Example(text, label, entities, words)


def _locate(tokens: Sequence[str], text: str) -> tuple[tuple[int, int], ...]:
    words: list[tuple[int, int]] = []
    position = 0
    for token in tokens:
        start = text.find(token, position)
        if start < 0 or text[position:start].strip():
            raise DataError(
                f"token {token!r} does not follow in the text at character {position} "
                f"({text[position : position + 20]!r}…); tokens must spell the text in order"
            )
        position = start + len(token)
        words.append((start, position))
    return tuple(words)


def _check_text(text: object) -> None:
    # However long: training cuts a text into windows, only a server limits it.
    if fault := text_fault(text, sys.maxsize):
        raise DataError(f"{fault}, or remove the example")


def _is_name(value: object) -> bool:
    """Whether a label schema can hold it: trimmed text, of characters that a file can hold."""
    return isinstance(value, str) and text_fault(value) is None and value == value.strip()


def _check_span(text: str, span: Span) -> None:
    start, end, name = span
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (start, end)):
        raise DataError(f"entity offsets must be whole numbers, got {start!r}:{end!r}")
    if not _is_name(name):
        raise DataError(f"entity {start}:{end} needs a type of trimmed text, got {name!r}")
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"entity {start}:{end} ({name}) does not lie in the text of {len(text)} characters; "
            "offsets count Unicode code points, end exclusive"
        )
    if text[start:end] != text[start:end].strip():
        raise DataError(
            f"entity {start}:{end} ({name}) begins or ends with white space "
            f"({text[start:end]!r}); trim it"
        )
