"""One name → examples: a file, a folder or a hub id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from multitask_core.errors import DataError
from multitask_train.data.examples import Example
from multitask_train.data.hub import PREFIX, read_hub
from multitask_train.data.readers import read_conll, read_intent_slot, read_jsonl

_SUFFIXES: dict[str, Callable[[Path], Iterator[Example]]] = {
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
    "train, dev and test of these, or hub:OWNER/NAME"
)


def read_examples(source: str | Path, split: str = "test") -> list[Example]:
    """Read a whole corpus.

    split: which part is meant where the source is a folder of splits or a hub id.
    Raises DataError naming file and line, or the formats that are allowed.
    """
    examples = list(_reader(str(source), split))
    if not examples:
        raise DataError(f"{source} holds no example")
    return examples


def source_files(source: str, split: str) -> list[Path]:
    """The local files behind a source, for hashing; empty for a hub id."""
    if source.startswith(PREFIX):
        return []
    path = _resolve(Path(source), split)
    return [path / name for name in ("seq.in", "seq.out", "label")] if path.is_dir() else [path]


def _reader(source: str, split: str) -> Iterator[Example]:
    if source.startswith(PREFIX):
        return read_hub(source, split)
    path = _resolve(Path(source), split)
    if path.is_dir():
        return read_intent_slot(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in _SUFFIXES:
        raise DataError(f"{path}: unknown format {suffix!r}; use {FORMATS}")
    return _SUFFIXES[suffix](path)


def _resolve(path: Path, split: str) -> Path:
    """Follow a folder of splits to the split that is meant."""
    if not path.exists():
        raise DataError(f"there is no {path}; use {FORMATS}")
    if path.is_file() or (path / "seq.in").is_file():
        return path
    names = {split, "valid" if split == "dev" else split}
    found = [item for item in sorted(path.iterdir()) if item.name.partition(".")[0] in names]
    if len(found) != 1:
        raise DataError(
            f"{path} holds {len(found)} entries named {' or '.join(sorted(names))}; use {FORMATS}"
        )
    return found[0]
