"""Text → word pieces → windows, with every offset a code point of the text as it was sent.

Training, evaluation, the server and the in-process pipeline all tokenise here and nowhere else.
A text longer than a window is covered by several that overlap by `stride` pieces and begin and end
at word boundaries; nothing is cut off.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from multitask_core.errors import ArtifactError, ConfigError, InputError

# What one text may cost: characters to tokenise, pieces (about 15,000 English words) to encode.
MAX_CHARS = 200_000
MAX_PIECES = 20_000
# Characters that are tokenised at once: what comes of them is larger by far, and lives as long.
_CHUNK_CHARS = 200_000


@dataclass(frozen=True)
class Windowing:
    """How a text is cut: `max_length` counts pieces with special tokens, `stride` the overlap."""

    max_length: int = 256
    stride: int = 64

    def __post_init__(self) -> None:
        if self.max_length < 8 or not 0 <= self.stride <= self.max_length // 2:
            raise ConfigError(
                f"max_length={self.max_length}, stride={self.stride}: max_length must be at least "
                "8 and stride between 0 and half of it"
            )


class Window(NamedTuple):
    """A range of a text's pieces that goes through the encoder as one row."""

    start: int
    stop: int


@dataclass(frozen=True)
class EncodedText:
    """One tokenised text.

    ids: piece ids without special tokens, [N].
    words: code-point span of each word, [W]; word_pieces: index of each word's first piece, [W].
    windows: at least one, together covering 0:N.
    """

    text: str
    ids: list[int]
    words: list[tuple[int, int]]
    word_pieces: list[int]
    windows: list[Window]


class TextEncoder:
    """A fast tokenizer with windowing; safe to share between threads.

    Raises ArtifactError for a tokenizer file that cannot be read, ConfigError for a window that
    leaves no room beside the tokenizer's special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, windowing: Windowing | None = None) -> None:
        self.windowing = windowing or Windowing()
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        # "[SEP]" in a text is five characters, not the control token.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self.prefix, self.suffix = _special_tokens(tokenizer)
        self._body = self.windowing.max_length - len(self.prefix) - len(self.suffix)
        if self._body <= self.windowing.stride:
            raise ConfigError(
                f"a window of {self.windowing.max_length} leaves {self._body} pieces beside the "
                f"special tokens, not more than the stride {self.windowing.stride}"
            )

    @classmethod
    def from_file(cls, path: Path, windowing: Windowing | None = None) -> TextEncoder:
        """Read a `tokenizer.json`; its own truncation and padding settings are ignored."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the binding raises bare Exception
            raise ArtifactError(f"cannot read the tokenizer {path}: {error}") from error
        return cls(tokenizer, windowing)

    def __call__(self, texts: Sequence[str]) -> list[EncodedText]:
        """Tokenise texts in which `text_fault` finds nothing."""
        return [self._encoded(text, one) for text, one in self._encodings(texts)]

    def each(self, texts: Sequence[str], max_pieces: int) -> Iterator[EncodedText | InputError]:
        """As calling it, but for each text of more pieces than that an error, which costs less."""
        for text, one in self._encodings(texts):
            yield _length_fault(text, len(one.ids), max_pieces) or self._encoded(text, one)

    @property
    def vocabulary_size(self) -> int:
        """Ids that the tokenizer can give lie below this."""
        size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        return size

    def input_ids(self, encoded: EncodedText, window: Window) -> list[int]:
        """The row for the encoder: prefix, the window's pieces, suffix."""
        return [*self.prefix, *encoded.ids[window.start : window.stop], *self.suffix]

    def _encodings(self, texts: Sequence[str]) -> Iterator[tuple[str, Encoding]]:
        for chunk in _chunks(texts):
            encodings = self._tokenizer.encode_batch(chunk, add_special_tokens=False)
            yield from zip(chunk, encodings, strict=True)

    def _encoded(self, text: str, encoding: Encoding) -> EncodedText:
        words, word_pieces = _words(text, encoding)
        windows = _windows(len(encoding.ids), word_pieces, self._body, self.windowing.stride)
        return EncodedText(text, encoding.ids, words, word_pieces, windows)


def text_fault(text: object, max_chars: int = MAX_CHARS) -> InputError | None:
    """Why a text cannot be predicted: no text, blank, too long, lone surrogates; None if it can."""
    if not isinstance(text, str):
        return InputError(f"a text must be str, got {type(text).__name__}")
    if not text or text.isspace():
        return InputError("the text is empty or only white space; send at least one word")
    if len(text) > max_chars:
        return InputError(
            f"the text has {len(text):,} characters; at most {max_chars:,} are allowed: "
            "split it, or raise the limit where it is configured"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return InputError(
            f"the text is no valid Unicode (invalid UTF-8 bytes, or a lone surrogate, at character "
            f"{error.start}); decode its source in the right encoding"
        )
    return None


def _length_fault(text: str, pieces: int, max_pieces: int) -> InputError | None:
    if pieces <= max_pieces:
        return None
    return InputError(
        f"the text has {pieces:,} word pieces in {len(text):,} characters; at most {max_pieces:,} "
        "are allowed: split it, or raise the limit where it is configured"
    )


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and size + len(text) > _CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True)
    first = full.special_tokens_mask.index(0) if 0 in full.special_tokens_mask else 0
    if not plain or full.ids[first : first + len(plain)] != plain:
        raise ArtifactError(
            "the tokenizer gives no pieces for 'a' or rearranges them around its special tokens"
        )
    return full.ids[:first], full.ids[first + len(plain) :]


def _words(text: str, encoding: Encoding) -> tuple[list[tuple[int, int]], list[int]]:
    """Group pieces into words: a new word wherever the tokenizer or the text has a boundary.

    The text is asked too because SentencePiece words run from space to space, punctuation included.
    """
    words: list[tuple[int, int]] = []
    pieces: list[int] = []
    last_word = last_end = -1
    for index, (word, (start, end)) in enumerate(
        zip(encoding.word_ids, encoding.offsets, strict=True)
    ):
        while start < end and text[start].isspace():
            start += 1
        if start == end:  # a piece that stands for white space alone
            continue
        while end < len(text) and _is_mark(text[end]):  # accents that the normaliser strips
            end += 1
        # Byte-level tokenizers give several pieces for one character, and part a letter from its
        # accent: those overlap.
        if start < last_end or (word == last_word and _continues(text, start, last_end)):
            end = max(end, last_end)
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
            pieces.append(index)
        last_word, last_end = word, end
    return words, pieces


def _continues(text: str, start: int, last_end: int) -> bool:
    """Whether a piece goes on with the word that ended at last_end."""
    return start == last_end and _is_letter(text[start - 1]) and _is_letter(text[start])


def _is_letter(character: str) -> bool:
    return character.isalnum() or _is_mark(character)


def _is_mark(character: str) -> bool:
    return character > "\x7f" and unicodedata.category(character)[0] == "M"


def _windows(count: int, word_pieces: list[int], body: int, stride: int) -> list[Window]:
    if count <= body:
        return [Window(0, count)]
    boundaries = {*word_pieces, count}
    windows: list[Window] = []
    start = 0
    while True:
        stop = _boundary_before(min(start + body, count), start, boundaries)
        if windows and stop <= windows[-1].stop:  # no room for a long word behind the overlap
            start = windows[-1].stop
            continue
        windows.append(Window(start, stop))
        if stop == count:
            return windows
        start = _boundary_before(stop - stride, start, boundaries) if stride else stop


def _boundary_before(position: int, after: int, boundaries: set[int]) -> int:
    """The last word boundary in (after, position], or position where one word fills it all."""
    candidate = position
    while candidate > after and candidate not in boundaries:
        candidate -= 1
    return candidate if candidate > after else max(position, after + 1)
