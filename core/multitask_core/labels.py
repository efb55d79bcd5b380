"""The label schema: sentence classes, entity types and the BIO tag table that both heads share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from multitask_core.errors import ArtifactError, DataError

OUTSIDE = "O"


@dataclass(frozen=True)
class LabelSchema:
    """Classes and entity types, in the order of the heads' outputs.

    Tag 0 is `O`; type k owns tags 1 + 2k (`B-`) and 2 + 2k (`I-`).
    Raises DataError for an empty, repeated or blank name.
    """

    classes: tuple[str, ...]
    entity_types: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_names("classes", self.classes)
        _check_names("entity types", self.entity_types)

    @classmethod
    def collect(cls, classes: Iterable[str], entity_types: Iterable[str]) -> LabelSchema:
        """Make a schema from names in any order, with repeats; sorted, so that runs repeat."""
        return cls(tuple(sorted(set(classes))), tuple(sorted(set(entity_types))))

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The BIO tags in the order of the token head's outputs, [2E + 1]."""
        pairs = [f"{prefix}-{name}" for name in self.entity_types for prefix in "BI"]
        return (OUTSIDE, *pairs)

    @cached_property
    def class_ids(self) -> Mapping[str, int]:
        """Index of each class."""
        return {name: index for index, name in enumerate(self.classes)}

    @cached_property
    def tag_ids(self) -> Mapping[str, int]:
        """Index of each BIO tag."""
        return {tag: index for index, tag in enumerate(self.tags)}

    def to_dict(self) -> dict[str, list[str]]:
        """Plain lists for JSON."""
        return {"classes": list(self.classes), "entity_types": list(self.entity_types)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> LabelSchema:
        """Read what `to_dict` wrote; raises DataError when it is anything else."""
        try:
            return cls(tuple(value["classes"]), tuple(value["entity_types"]))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"a label schema needs the lists 'classes' and 'entity_types'; got {value!r:.200}"
            ) from error

    def save(self, path: Path) -> None:
        """Write the schema as JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> LabelSchema:
        """Read a schema file; raises ArtifactError when it is missing or broken."""
        try:
            return cls.from_dict(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, DataError) as error:
            raise ArtifactError(f"cannot read the label schema {path}: {error}") from error


def split_tag(tag: str) -> tuple[str, str]:
    """`B-city.name` → (`B`, `city.name`), `O` → (`O`, ``); split at the first hyphen only.

    Raises DataError for anything that is not `O`, `B-type` or `I-type`.
    """
    prefix, hyphen, name = tag.partition("-")
    if tag == OUTSIDE or (prefix in ("B", "I") and hyphen and name):
        return prefix, name
    raise DataError(f"{tag!r} is no BIO tag: allowed are O, B-<type> and I-<type>")


def bio_spans(tags: Iterable[str]) -> list[tuple[int, int, str]]:
    """Tags → entity spans (first, last + 1, type) in tag positions.

    An `I-` that continues nothing of its type opens a span, as in the CoNLL evaluation script.
    """
    spans: list[tuple[int, int, str]] = []
    start, current = 0, ""
    position = -1
    for position, tag in enumerate(tags):
        prefix, name = split_tag(tag)
        if current and (prefix != "I" or name != current):
            spans.append((start, position, current))
            current = ""
        if prefix != OUTSIDE and not current:
            start, current = position, name
    if current:
        spans.append((start, position + 1, current))
    return spans


def span_tags(length: int, spans: Iterable[tuple[int, int, str]]) -> list[str]:
    """Entity spans in tag positions → BIO tags [length]; the inverse of `bio_spans`.

    Raises DataError for spans that are empty, out of range or overlap.
    """
    tags = [OUTSIDE] * length
    for start, end, name in spans:
        if not 0 <= start < end <= length:
            raise DataError(f"span {start}:{end} ({name}) does not lie within 0:{length}")
        if any(tag != OUTSIDE for tag in tags[start:end]):
            raise DataError(f"span {start}:{end} ({name}) overlaps another entity")
        tags[start:end] = [f"B-{name}"] + [f"I-{name}"] * (end - start - 1)
    return tags


def _check_names(what: str, names: tuple[str, ...]) -> None:
    if not names:
        raise DataError(
            f"the label schema has no {what}: both heads need at least one; "
            "add a corpus that carries this annotation"
        )
    for name in names:
        if not isinstance(name, str) or not name.strip() or name != name.strip():
            raise DataError(f"{what}: {name!r} is not a usable name; use non-blank, trimmed text")
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{what}: {', '.join(repeated)} named more than once")
