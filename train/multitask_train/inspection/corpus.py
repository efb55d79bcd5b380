"""Sources → splits, with the faults of every record that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from multitask_core.errors import DataError
from multitask_train.data.examples import Located
from multitask_train.data.sources import SPLITS, read_records, splits_of

# A file is one part; `dev=my-file.jsonl` says which split it is.
_NAMED = re.compile(rf"({'|'.join(SPLITS)})=(.+)", re.DOTALL)
WHOLE = "data"


@dataclass
class Findings:
    """How many there are, and the first `limit`, each in words."""

    limit: int = 10
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < self.limit:
            self.first.append(text)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"count": self.count, "first": self.first}


@dataclass
class Split:
    """The examples of one split and what is wrong with its other records."""

    name: str
    records: list[Located] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_splits(sources: Sequence[str], only: Sequence[str] = ()) -> list[Split]:
    """Read every split of every source; the same split of several sources becomes one, as in `fit`.

    only: names of splits; without any, all of train, dev and test that exist. Faults of records and
    of files that cannot be read to their end, are kept in their split. Raises DataError for a
    source that is not there.
    """
    splits: dict[str, Split] = {}
    for given in sources:
        for name, source in _parts(given, only):
            _read_into(splits.setdefault(name, Split(name)), source)
    order = {name: index for index, name in enumerate(SPLITS)}
    return sorted(splits.values(), key=lambda split: order.get(split.name, len(order)))


def _parts(given: str, only: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The names of a source's splits, each with the source without its prefix."""
    if match := _NAMED.fullmatch(given):
        yield match[1], match[2]
        return
    found = splits_of(given)
    for name in only or found or [_file_split(given)]:
        yield name, given


def _file_split(source: str) -> str:
    """The split that the name of a file or folder tells, `valid.jsonl` for instance."""
    stem = re.split(r"[/\\]", source.rstrip("/\\"))[-1].partition(".")[0]
    stem = "dev" if stem == "valid" else stem
    return stem if stem in SPLITS else WHOLE


def _read_into(split: Split, source: str) -> None:
    before = len(split.records), len(split.faults)
    try:
        _take(split, read_records(source, split.name))
    except DataError as error:  # nothing more can be read
        split.faults.append(str(error))
    if (len(split.records), len(split.faults)) == before:
        split.faults.append(
            f"{source} ({split.name}) holds no example; fill it, or leave this split out"
        )


def _take(split: Split, read: Iterable[Located | DataError]) -> None:
    for one in read:
        if isinstance(one, Located):
            split.records.append(one)
        else:
            split.faults.append(str(one))
