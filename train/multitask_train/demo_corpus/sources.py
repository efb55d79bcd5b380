"""Reads and checks the hand-written data files of the demo corpus.

Faults raise ValueError that names the file, the line and the remedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

Lexicons = dict[str, dict[str, list[str]]]

MARK = re.compile(r"\{(?P<slot>\w+)\}|\[(?P<value>[^\[\]]+)\]\((?P<type>\w+)\)")
STRAY = re.compile(r"[\[\]{}]")


@dataclass(frozen=True)
class Piece:
    """A stretch of a sentence: plain text, an entity mention, or a slot (a type without text)."""

    text: str
    type: str = ""

    @property
    def is_slot(self) -> bool:
        """Whether a value is still to be put here."""
        return bool(self.type) and not self.text


@dataclass(frozen=True)
class Sentence:
    """A frame or a whole sentence, with the file and line it was read from."""

    intent: str
    pieces: tuple[Piece, ...]
    source: str
    where: str


@dataclass(frozen=True)
class Sources:
    """Everything the corpus is made from."""

    frames: dict[str, list[Sentence]]
    natural: list[Sentence]
    lexicons: Lexicons


def load(source: Path | None = None) -> Sources:
    """Read and check the data files of the package, or of a folder with the same layout.

    Raises ValueError that names the file, the line and the remedy when a file is faulty.
    """
    root: Path | Traversable = files(__package__) if source is None else source
    lexicons = _read_lexicons(root / "lexicons.json")
    frames: dict[str, list[Sentence]] = {}
    seen: dict[str, str] = {}
    for file in sorted((root / "frames").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".txt"):
            intent = file.name.removesuffix(".txt")
            lines = _read_lines(file, f"frames/{file.name}")
            frames[intent] = [
                Sentence(intent, parse(line, where, lexicons), line, where) for where, line in lines
            ]
            _refuse_repeats(frames[intent], seen)
    natural = list(_read_natural(root / "natural_test.txt", frames, lexicons))
    _refuse_repeats(natural, seen)
    return Sources(frames, natural, lexicons)


def parse(line: str, where: str, lexicons: Lexicons) -> tuple[Piece, ...]:
    """Split a line with {type} slots and [value](type) mentions into pieces.

    Raises ValueError that begins with `where` for broken markup or a type without a lexicon.
    """
    pieces: list[Piece] = []
    at = 0
    for match in MARK.finditer(line):
        pieces.append(Piece(line[at : match.start()]))
        entity_type = match["slot"] or match["type"]
        if entity_type not in lexicons:
            raise ValueError(f"{where}: no lexicon for '{entity_type}'; add one or fix the name")
        pieces.append(Piece(match["value"] or "", entity_type))
        at = match.end()
    pieces.append(Piece(line[at:]))
    for piece in pieces:
        if not piece.type and STRAY.search(piece.text):
            raise ValueError(
                f"{where}: broken markup in '{piece.text.strip()}'; write {{type}} or [value](type)"
            )
        if piece.type and piece.text != piece.text.strip():
            raise ValueError(f"{where}: move the spaces out of the mention '{piece.text}'")
    return tuple(piece for piece in pieces if piece.text or piece.type)


def text_key(text: str) -> str:
    """Return what two texts must share to count as the same."""
    return text.casefold().rstrip(".?! ")


def _read_lines(file: Path | Traversable, name: str) -> Iterator[tuple[str, str]]:
    """Yield ("name:line number", text) for each line that is neither blank nor a comment."""
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            yield f"{name}:{number}", line.strip()


def _read_natural(
    file: Path | Traversable, intents: dict[str, list[Sentence]], lexicons: Lexicons
) -> Iterator[Sentence]:
    for where, line in _read_lines(file, "natural_test.txt"):
        intent, tab, text = line.partition("\t")
        if not tab or intent not in intents:
            raise ValueError(f"{where}: start the line with a known intent and a tab")
        pieces = parse(text, where, lexicons)
        if any(piece.is_slot for piece in pieces):
            raise ValueError(f"{where}: a whole sentence has no {{type}} slot; write [value](type)")
        yield Sentence(intent, pieces, text, where)


def _read_lexicons(file: Path | Traversable) -> Lexicons:
    try:
        lexicons: Lexicons = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"lexicons.json:{error.lineno}: not valid JSON: {error.msg}") from error
    for name, parts in lexicons.items():
        for part in ("train", "test"):
            if not parts.get(part):
                raise ValueError(f"lexicons.json: '{name}' needs values under '{part}'")
        folded = [value.casefold() for value in parts["train"] + parts["test"]]
        repeated = sorted({value for value in folded if folded.count(value) > 1})
        if repeated:
            raise ValueError(f"lexicons.json: '{name}' lists {repeated} twice; keep one of each")
    return lexicons


def _refuse_repeats(sentences: list[Sentence], seen: dict[str, str]) -> None:
    """Raise ValueError at the second place where a frame or sentence occurs; extends `seen`."""
    for sentence in sentences:
        first = seen.setdefault(text_key(sentence.source), sentence.where)
        if first != sentence.where:
            raise ValueError(f"{sentence.where}: repeats {first}; delete or reword one of them")
