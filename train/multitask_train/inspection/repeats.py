"""The same text twice: within a split, across splits, and with other annotation.

Texts count as the same where they differ in letter case and white space alone; how many are equal
to the character is told beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from multitask_train.data.examples import Example, Located
from multitask_train.inspection.corpus import Findings, Split

_SHOWN_TEXT = 60


@dataclass(frozen=True)
class Repeats:
    """Within a split: sentences that repeat an earlier one, texts with contradictory annotation."""

    exact: int
    folded: int
    contradictions: Findings

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"contradictions": self.contradictions.to_dict()}


@dataclass(frozen=True)
class Overlap:
    """Sentences of `split` that also stand in the split `within`."""

    split: str
    within: str
    sentences: int
    exact: int
    folded: int
    contradictions: int
    found: Findings

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"found": self.found.to_dict()}


def repeats(records: Sequence[Located]) -> Repeats:
    """Sentences that repeat an earlier one of the split."""
    groups = _grouped(records)
    contradictions = Findings()
    for group in groups.values():
        if annotations := _annotations(group):
            contradictions.add(f"{_where(group)}: {annotations}")
    return Repeats(
        exact=len(records) - len({record.example.text for record in records}),
        folded=len(records) - len(groups),
        contradictions=contradictions,
    )


def overlaps(splits: Sequence[Split]) -> list[Overlap]:
    """One for each pair of splits, also where nothing overlaps; the earlier split is `within`."""
    groups = [_grouped(split.records) for split in splits]
    return [
        _overlap(splits[one], splits[other], groups[one])
        for one, other in combinations(range(len(splits)), 2)
    ]


def fold(text: str) -> str:
    """A text without the differences of letter case and white space."""
    return " ".join(text.casefold().split())


def _overlap(within: Split, split: Split, groups: Mapping[str, list[Located]]) -> Overlap:
    exact = {record.example.text for record in within.records}
    again = [record for record in split.records if fold(record.example.text) in groups]
    variants: dict[str, list[Located]] = {}
    found, contradictions = Findings(), 0
    for record in again:
        key = fold(record.example.text)
        if key not in variants:
            variants[key] = _variants(groups[key])
        annotations = _annotations([*variants[key], record])
        contradictions += bool(annotations)
        where = _where(variants[key][:1])
        found.add(f"{record.place} and {where}{annotations and f': {annotations}'}")
    return Overlap(
        split=split.name,
        within=within.name,
        sentences=len(split.records),
        exact=sum(record.example.text in exact for record in again),
        folded=len(again),
        contradictions=contradictions,
        found=found,
    )


def _grouped(records: Iterable[Located]) -> dict[str, list[Located]]:
    groups: defaultdict[str, list[Located]] = defaultdict(list)
    for record in records:
        groups[fold(record.example.text)].append(record)
    return dict(groups)


def _variants(group: Iterable[Located]) -> list[Located]:
    """The first record of each annotation: a text may stand in a split a thousand times."""
    first: dict[object, Located] = {}
    for record in group:
        first.setdefault((record.example.label, _entities(record.example)), record)
    return list(first.values())


def _annotations(group: Sequence[Located]) -> str:
    """The different labels, or kinds of entities, of one text; empty where all agree.

    An example without labels, or without entities, contradicts none that has them.
    """
    if len(group) < 2:
        return ""
    examples = [record.example for record in group]
    labels = {example.label for example in examples if example.label is not None}
    if len(labels) > 1:
        return f"labels {', '.join(sorted(labels))}"
    entities = {_entities(one): one for one in examples if one.entities is not None}
    if len(entities) > 1:
        return f"entities {' against '.join(map(_listed, entities.values()))}"
    return ""


def _entities(example: Example) -> tuple[tuple[int, int, str], ...] | None:
    """Entities with offsets into the folded text without white space, which equal texts share."""
    if example.entities is None:
        return None
    return tuple(
        (_inked(example.text[:start]), _inked(example.text[:end]), name)
        for start, end, name in example.entities
    )


def _inked(text: str) -> int:
    return len("".join(text.casefold().split()))


def _listed(example: Example) -> str:
    spans = example.entities or ()
    return ", ".join(f"{one.type} {example.text[one.start : one.end]!r}" for one in spans) or "none"


def _where(group: Sequence[Located]) -> str:
    places = " and ".join(record.place for record in group[:2])
    more = f" and {len(group) - 2} more" if len(group) > 2 else ""
    text = group[0].example.text
    cut = text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…"
    return f"{places}{more} {cut!r}"
