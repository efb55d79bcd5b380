"""One name → examples: a file, a folder, a hub id or `demo`, the corpus in this package."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from multitask_core import manifest
from multitask_core.errors import DataError
from multitask_train import demo_corpus
from multitask_train.data.examples import Example, Located, Read, attempt
from multitask_train.data.hub import PREFIX, hub_splits, named_split, read_hub
from multitask_train.data.readers import (
    INTENT_SLOT,
    located_record,
    read_conll,
    read_intent_slot,
    read_jsonl,
)

# The source that stands for the corpus inside this package; `./demo` is a folder of that name.
DEMO = "demo"
SPLITS = ("train", "dev", "test")
_SUFFIXES: dict[str, Callable[[Path], Iterator[Read]]] = {
    ".jsonl": read_jsonl,
    ".json": read_jsonl,
    ".conll": read_conll,
    ".bio": read_conll,
    ".iob": read_conll,
    ".tsv": read_conll,
    ".txt": read_conll,
}
FORMATS = (
    "a .jsonl or .conll file (.gz too), a folder with seq.in, seq.out and label, a folder with "
    "train, dev and test of these, hub:OWNER/NAME, or demo for the corpus in this package"
)


def read_examples(source: str | Path, split: str = "test") -> list[Example]:
    """Read a whole corpus.

    split: which part is meant where the source is a folder of splits, a hub id or `demo`.
    Raises DataError naming file and line of the first fault and the number of faults, or the
    formats that are allowed.
    """
    examples: list[Example] = []
    faults: list[DataError] = []
    for one in read_records(source, split):
        if isinstance(one, Located):
            examples.append(one.example)
        else:
            faults.append(one)
    if faults:
        raise DataError(_first_of(faults, source))
    if not examples:
        raise DataError(f"{source} holds no example")
    return examples


def read_records(source: str | Path, split: str = "test") -> Iterator[Read]:
    """Each example of a corpus with its place, or in its place the DataError of a faulty record.

    Raises DataError where nothing, or nothing more, can be read.
    """
    source = str(source)
    if source == DEMO:
        return _read_demo(split)
    if source.startswith(PREFIX):
        return read_hub(source, split)
    path = _resolve(Path(source), split)
    if path.is_dir():
        return read_intent_slot(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in _SUFFIXES:
        raise DataError(f"{path}: unknown format {suffix!r}; use {FORMATS}")
    return _SUFFIXES[suffix](path)


def splits_of(source: str) -> tuple[str, ...]:
    """Which of train, dev and test a source holds; none where it is one part by itself.

    Raises DataError for a source that is not there or holds none of them.
    """
    if source == DEMO:
        return SPLITS
    if source.startswith(PREFIX):
        return () if named_split(source) else tuple(hub_splits(source))
    path = Path(source)
    if path.is_file() or (path / "seq.in").is_file():
        return ()
    if not path.exists():
        raise DataError(f"there is no {path}; use {FORMATS}")
    found = tuple(split for split in SPLITS if _entries(path, split))
    if not found:
        raise DataError(f"{path} holds no entry named train, dev, valid or test; use {FORMATS}")
    return found


def source_hash(source: str, split: str) -> str:
    """SHA-256 over what a source holds, whatever its place; a hub id counts by its name alone."""
    if source.startswith(PREFIX):
        content = f"{source} {split}"
    elif source == DEMO:
        content = json.dumps(_demo_records(split))
    else:
        path = _resolve(Path(source), split)
        files = [path / name for name in INTENT_SLOT] if path.is_dir() else [path]
        content = " ".join(manifest.sha256(file) for file in files)
    return hashlib.sha256(content.encode()).hexdigest()


def _first_of(faults: list[DataError], source: str | Path) -> str:
    more = len(faults) - 1
    if not more:
        return str(faults[0])
    return (
        f"{faults[0]}; {more} more fault{'s' if more > 1 else ''}: run "
        f"`python -m multitask_train inspect {shlex.quote(str(source))}`"
    )


def _read_demo(split: str) -> Iterator[Read]:
    for number, record in enumerate(_demo_records(split), 1):
        place = f"{DEMO}:{number}"
        yield attempt(place, located_record, place, record)


def _demo_records(split: str) -> list[dict[str, Any]]:
    splits = demo_corpus.build()
    if split not in splits:
        raise DataError(f"{DEMO} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split]


def _resolve(path: Path, split: str) -> Path:
    """Follow a folder of splits to the split that is meant."""
    if not path.exists():
        raise DataError(f"there is no {path}; use {FORMATS}")
    if path.is_file() or (path / "seq.in").is_file():
        return path
    found = _entries(path, split)
    if len(found) != 1:
        raise DataError(
            f"{path} holds {len(found)} entries named {' or '.join(_names(split))}; use {FORMATS}"
        )
    return found[0]


def _entries(folder: Path, split: str) -> list[Path]:
    names = _names(split)
    return [item for item in sorted(folder.iterdir()) if item.name.partition(".")[0] in names]


def _names(split: str) -> list[str]:
    return sorted({split, "valid" if split == "dev" else split})
