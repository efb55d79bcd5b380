"""What a split is annotated with: sentences, labels, entity types and faults of its BIO tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from multitask_core.labels import split_tag
from multitask_train.data.examples import Located
from multitask_train.inspection.corpus import Findings

# A class or type with fewer training examples can hardly be learned.
FEW = 5


@dataclass(frozen=True)
class Spread:
    """Mean, percentiles and largest of a whole number that every sentence has."""

    mean: float = 0.0
    p50: int = 0
    p95: int = 0
    p99: int = 0
    max: int = 0

    @classmethod
    def of(cls, values: Sequence[int]) -> Spread:
        """Percentiles are values that occur; all are 0 where there are no values."""
        if not values:
            return cls()
        p50, p95, p99 = np.percentile(values, [50, 95, 99], method="higher")
        return cls(round(float(np.mean(values)), 2), int(p50), int(p95), int(p99), max(values))


@dataclass(frozen=True)
class Counts:
    """Sentences of a split by annotation; labels and types with their numbers, commonest first."""

    sentences: int
    labelled: int
    tagged: int
    both: int
    labels: dict[str, int]
    types: dict[str, int]

    @property
    def imbalance(self) -> float:
        """Sentences of the commonest label for each one of the rarest; 0 without labels."""
        return max(self.labels.values()) / min(self.labels.values()) if self.labels else 0.0

    def to_dict(self) -> dict[str, object]:
        """For JSON, with the shares of labels and types."""
        return {
            **asdict(self),
            "labels": _with_shares(self.labels),
            "types": _with_shares(self.types),
            "imbalance": round(self.imbalance, 2),
        }


def count(records: Sequence[Located]) -> Counts:
    """Count a split's annotation; `entities: []` is annotation too."""
    examples = [record.example for record in records]
    labels = Counter(example.label for example in examples if example.label is not None)
    types = Counter(span.type for example in examples for span in example.entities or ())
    tagged = [example for example in examples if example.entities is not None]
    return Counts(
        sentences=len(examples),
        labelled=labels.total(),
        tagged=len(tagged),
        both=sum(example.label is not None for example in tagged),
        labels=dict(labels.most_common()),
        types=dict(types.most_common()),
    )


def lacking(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names that are not known; none where nothing at all is, which is another finding."""
    known = set(known)
    return sorted(set(names) - known) if known else []


def few(counts: dict[str, int]) -> dict[str, int]:
    """Those that occur less than FEW times."""
    return {name: number for name, number in counts.items() if number < FEW}


def tag_faults(records: Iterable[Located]) -> Findings:
    """BIO tags that continue no entity of their type, as readers and seqeval count them."""
    found = Findings()
    for record in records:
        for position, fault in _tag_faults(record.tags or ()):
            start, end = (record.example.words or ())[position]
            word = record.example.text[start:end]
            found.add(f"{record.place}: word {position + 1} {word!r}: {fault}")
    return found


def _tag_faults(tags: Sequence[str]) -> Iterator[tuple[int, str]]:
    before = "O"
    for position, tag in enumerate(tags):
        prefix, name = split_tag(tag)
        if prefix == "I" and split_tag(before)[1] != name:
            if before == "O":
                why = "continues nothing"
            else:
                why = f"changes the type inside the entity that {before} belongs to"
            yield position, f"{tag} {why}; it is read as B-{name}: write that, or mend the tags"
        before = tag


def _with_shares(counts: dict[str, int]) -> dict[str, dict[str, float]]:
    total = sum(counts.values())
    return {
        name: {"count": number, "share": round(number / total, 4)}
        for name, number in counts.items()
    }
