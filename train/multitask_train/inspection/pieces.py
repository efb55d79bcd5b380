"""What a tokenizer makes of a split: lengths, windows, padding, and the words that it loses.

Texts go through the same `TextEncoder` as in training and serving.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from tokenizers import Tokenizer
from tqdm import tqdm

from multitask_core.text import EncodedText, TextEncoder, Windowing
from multitask_train.data.batches import pool_batches
from multitask_train.data.examples import Example, Located
from multitask_train.data.features import describe_change, unlearnable
from multitask_train.inspection.corpus import Findings
from multitask_train.inspection.counts import Spread

BATCH_SIZE = 32
_CHUNK = 1024
_TOP = 10
_CODE_POINTS = 8
_WORD = re.compile(r"\S+")

Words = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Pieces:
    """A split in word pieces.

    words, pieces: of a sentence, special tokens left out. windows: rows for the encoder.
    long_texts: texts beyond one window, long_windows: their windows. padding, padding_grouped:
    share of a batch of BATCH_SIZE windows that is padding, in random order and grouped by length.
    """

    words: Spread
    pieces: Spread
    windows: int
    long_texts: int
    long_windows: int
    padding: float
    padding_grouped: float
    empty_texts: Findings
    lost_words: Findings
    unknown: int
    unknown_share: float
    unknown_words: dict[str, int]
    entities: int
    changed_entities: Findings

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {
            name: getattr(self, name).to_dict()
            for name in ("empty_texts", "lost_words", "changed_entities")
        }


class Measure:
    """A tokenizer and a window; measures splits."""

    def __init__(self, tokenizer: Tokenizer, unknown: str | None, windowing: Windowing) -> None:
        self._encoder = TextEncoder(tokenizer, windowing)
        self._unknown = None if unknown is None else tokenizer.token_to_id(unknown)
        self._special = len(self._encoder.prefix) + len(self._encoder.suffix)

    def __call__(self, records: Sequence[Located]) -> Pieces:
        """Tokenise a split, a part at a time."""
        tally = _Tally(self._unknown, self._special)
        chunks = range(0, len(records), _CHUNK)
        for first in tqdm(chunks, unit_scale=_CHUNK, unit=" texts", leave=False, disable=None):
            chunk = records[first : first + _CHUNK]
            encoded = self._encoder([record.example.text for record in chunk])
            for record, text in zip(chunk, encoded, strict=True):
                tally.add(record, text)
        return tally.result()


@dataclass
class _Tally:
    """What is counted while the texts go by; see Pieces."""

    unknown_id: int | None
    special: int
    words: list[int] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    long: list[int] = field(default_factory=list)
    empty: Findings = field(default_factory=Findings)
    lost: Findings = field(default_factory=Findings)
    unknown: int = 0
    unknown_words: Counter[str] = field(default_factory=Counter)
    entities: int = 0
    changed: Findings = field(default_factory=Findings)

    def add(self, record: Located, text: EncodedText) -> None:
        example, words = record.example, _words(record.example)
        self.words.append(len(words))
        self.pieces.append(len(text.ids))
        self.windows.extend(stop - start + self.special for start, stop in text.windows)
        if len(text.windows) > 1:
            self.long.append(len(text.windows))
        if not text.words:
            self.empty.add(f"{record.place}: {spelled(example.text)}")
        for start, end in lost_words(words, text.words):
            self.lost.add(f"{record.place}: {spelled(example.text[start:end])}")
        self._count_unknown(text)
        self.entities += len(example.entities or ())
        for span, learned in unlearnable(example.entities or (), text.words):
            self.changed.add(f"{record.place}: {describe_change(example.text, span, learned)}")

    def _count_unknown(self, text: EncodedText) -> None:
        if self.unknown_id not in text.ids:
            return
        self.unknown += text.ids.count(self.unknown_id)
        stops = [*text.word_pieces[1:], len(text.ids)]
        for (start, end), first, stop in zip(text.words, text.word_pieces, stops, strict=False):
            if self.unknown_id in text.ids[first:stop]:
                self.unknown_words[text.text[start:end]] += 1

    def result(self) -> Pieces:
        total = sum(self.pieces)
        return Pieces(
            words=Spread.of(self.words),
            pieces=Spread.of(self.pieces),
            windows=len(self.windows),
            long_texts=len(self.long),
            long_windows=sum(self.long),
            padding=padding_share(self.windows, pool=0),
            padding_grouped=padding_share(
                self.windows, pool=pool_batches(len(self.windows), BATCH_SIZE)
            ),
            empty_texts=self.empty,
            lost_words=self.lost,
            unknown=self.unknown,
            unknown_share=self.unknown / total if total else 0.0,
            unknown_words=dict(self.unknown_words.most_common(_TOP)),
            entities=self.entities,
            changed_entities=self.changed,
        )


def lost_words(words: Words, kept: Words) -> list[tuple[int, int]]:
    """The corpus's words that none of the tokenizer's words touches: they give no piece."""
    lost: list[tuple[int, int]] = []
    at = 0
    for start, end in words:
        while at < len(kept) and kept[at][1] <= start:
            at += 1
        if at == len(kept) or kept[at][0] >= end:
            lost.append((start, end))
    return lost


def padding_share(lengths: Iterable[int], pool: int) -> float:
    """Share of padding in batches of BATCH_SIZE rows, in random order.

    pool: so many batches are filled together from rows sorted by length, as training does; 0: none.
    """
    rows = list(lengths)
    random.Random(0).shuffle(rows)  # noqa: S311  no secret
    size = BATCH_SIZE * pool or len(rows) or 1
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    computed = 0
    for part in map(sorted, parts) if pool else parts:
        batches = (part[first : first + BATCH_SIZE] for first in range(0, len(part), BATCH_SIZE))
        computed += sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(rows) / computed if computed else 0.0


def spelled(text: str) -> str:
    """A text, shortened, with the code points of its first characters: `'\\u200b' (U+200B)`."""
    points = " ".join(f"U+{ord(character):04X}" for character in text[:_CODE_POINTS])
    more = " …" if len(text) > _CODE_POINTS else ""
    return f"{text[:40]!r} ({points}{more})"


def _words(example: Example) -> Words:
    """The corpus's own tokens, or what stands between white space."""
    return example.words or [match.span() for match in _WORD.finditer(example.text)]
