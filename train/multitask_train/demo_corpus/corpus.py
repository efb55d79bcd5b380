"""Builds the demo corpus from its hand-written frames, lexicons and whole test sentences.

The data files and the rules for annotating them are described in the README beside this module.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from .sources import Piece, Sentence, load, text_key

Example = dict[str, object]

DEV_SHARE, TEST_SHARE = 0.08, 0.07
LOWER_SHARE, UNPUNCTUATED_SHARE = 0.12, 0.15
TRIES_PER_EXAMPLE = 20
DEALS, ENOUGH_FRAMES = 60, 2


def build(
    seed: int = 13, per_frame: int = 6, *, source: Path | None = None
) -> dict[str, list[Example]]:
    """Make the `train`, `dev` and `test` splits; the same arguments give the same corpus.

    An example is {"text", "label", "entities": [{"start", "end", "type"}]}, with offsets in
    Unicode code points, end exclusive, sorted by start. A frame with slots gives at most
    `per_frame` examples and any other frame one. No two examples share a text, ignoring case
    and final punctuation. `source` is a folder laid out like this package, for other data.
    Raises ValueError for per_frame < 1 and for faults in the data files.
    """
    if per_frame < 1:
        raise ValueError(f"per_frame must be at least 1, not {per_frame}")
    sources = load(source)
    natural = [_render(sentence.intent, sentence.pieces) for sentence in sources.natural]
    taken = {text_key(str(example["text"])) for example in natural}
    splits: dict[str, list[Example]] = {}
    for split, frames in _split_frames(sources.frames, seed).items():
        part = "test" if split == "test" else "train"
        values = {name: lexicon[part] for name, lexicon in sources.lexicons.items()}
        splits[split] = [
            example for frame in frames for example in _fill(frame, values, seed, per_frame, taken)
        ]
    splits["test"].extend(natural)
    for split, examples in splits.items():
        _random(f"{seed}/order/{split}").shuffle(examples)
    return splits


def write(folder: Path, seed: int = 13, per_frame: int = 6) -> dict[str, Path]:
    """Write `train.jsonl`, `dev.jsonl` and `test.jsonl` to `folder` and return their paths.

    The files are UTF-8 with one example a line. Each is written beside its place and renamed,
    so a reader never sees half a file. Raises as `build` does, and OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for split, examples in build(seed, per_frame).items():
        paths[split] = folder / f"{split}.jsonl"
        beside = folder / f".{split}.jsonl.part"
        lines = (json.dumps(example, ensure_ascii=False) + "\n" for example in examples)
        beside.write_bytes("".join(lines).encode("utf-8"))
        beside.replace(paths[split])
    return paths


def _split_frames(frames: dict[str, list[Sentence]], seed: int) -> dict[str, list[Sentence]]:
    """Return the one of several random deals whose held-out frames cover the types best."""
    return max((_deal(frames, f"{seed}/deal/{number}") for number in range(DEALS)), key=_coverage)


def _deal(frames: dict[str, list[Sentence]], stream: str) -> dict[str, list[Sentence]]:
    """Deal each intent's frames to the splits, so that every intent is in all three."""
    splits: dict[str, list[Sentence]] = {"train": [], "dev": [], "test": []}
    for intent, of_intent in frames.items():
        shuffled = list(of_intent)
        _random(f"{stream}/{intent}").shuffle(shuffled)
        dev = max(1, round(DEV_SHARE * len(shuffled)))
        held_out = dev + max(1, round(TEST_SHARE * len(shuffled)))
        splits["dev"] += shuffled[:dev]
        splits["test"] += shuffled[dev:held_out]
        splits["train"] += shuffled[held_out:]
    return splits


def _coverage(splits: dict[str, list[Sentence]]) -> tuple[int, int]:
    """Count the types held-out frames use, then those frames, up to ENOUGH_FRAMES for each."""
    uses = Counter(
        (split, entity_type)
        for split in ("dev", "test")
        for frame in splits[split]
        for entity_type in {piece.type for piece in frame.pieces if piece.is_slot}
    )
    return len(uses), sum(min(count, ENOUGH_FRAMES) for count in uses.values())


def _fill(
    frame: Sentence, values: dict[str, list[str]], seed: int, per_frame: int, taken: set[str]
) -> Iterator[Example]:
    """Yield the examples of one frame and add their keys to `taken`."""
    # A stream of its own keeps a frame's examples unchanged when other frames are edited.
    rng = _random(f"{seed}/fill/{frame.source}")
    wanted = per_frame if any(piece.is_slot for piece in frame.pieces) else 1
    for _ in range(wanted * TRIES_PER_EXAMPLE):
        if not wanted:
            return
        example = _render(frame.intent, _restyle(_choose(frame.pieces, values, rng), rng))
        key = text_key(str(example["text"]))
        if key not in taken:
            taken.add(key)
            wanted -= 1
            yield example


def _choose(
    pieces: tuple[Piece, ...], values: dict[str, list[str]], rng: Random
) -> tuple[Piece, ...]:
    """Put a value into every slot, never the same one twice in a sentence."""
    filled: list[Piece] = []
    for piece in pieces:
        if piece.is_slot:
            unused = [
                value for value in values[piece.type] if Piece(value, piece.type) not in filled
            ]
            piece = Piece(rng.choice(unused), piece.type)
        filled.append(piece)
    return tuple(filled)


def _restyle(pieces: tuple[Piece, ...], rng: Random) -> tuple[Piece, ...]:
    """Vary case and final punctuation piece by piece, before offsets are counted."""
    plain = "".join(piece.text for piece in pieces if not piece.type)
    lower, unpunctuated = rng.random() < LOWER_SHARE, rng.random() < UNPUNCTUATED_SHARE
    if plain.isupper():
        pieces = tuple(replace(piece, text=piece.text.upper()) for piece in pieces)
    elif lower:
        pieces = tuple(replace(piece, text=piece.text.lower()) for piece in pieces)
    last = pieces[-1]
    if unpunctuated and not last.type:
        pieces = (*pieces[:-1], replace(last, text=last.text.rstrip(".?!")))
    return pieces


def _render(intent: str, pieces: tuple[Piece, ...]) -> Example:
    text = ""
    entities: list[dict[str, object]] = []
    for piece in pieces:
        end = len(text) + len(piece.text)
        if piece.type:
            entities.append({"start": len(text), "end": end, "type": piece.type})
        text += piece.text
    return {"text": text, "label": intent, "entities": entities}


def _random(stream: str) -> Random:
    # Seeding with text is the same in every Python version and blind to the hash seed.
    return Random(stream)  # noqa: S311
