"""All that is found in every split, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from multitask_core.text import Windowing
from multitask_train.inspection.corpus import Findings, Split
from multitask_train.inspection.counts import Counts, count, few, lacking, tag_faults
from multitask_train.inspection.pieces import Measure, Pieces
from multitask_train.inspection.repeats import Overlap, Repeats, overlaps, repeats

TRAIN = "train"
SHOWN_FAULTS = 50


@dataclass(frozen=True)
class SplitReport:
    """One split; faults: records that could not be read."""

    name: str
    counts: Counts
    pieces: Pieces
    repeats: Repeats
    tag_faults: Findings
    faults: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            **self.counts.to_dict(),
            "faulty_records": self.faults,
            "tokens": self.pieces.to_dict(),
            "repeats": self.repeats.to_dict(),
            "tag_faults": self.tag_faults.to_dict(),
        }


@dataclass(frozen=True)
class Absence:
    """Labels or entity types (`what`) that `here` has and `there` lacks; learned: here is train."""

    what: str
    here: str
    there: str
    names: list[str]
    learned: bool


@dataclass(frozen=True)
class Report:
    """What `inspect` found."""

    sources: tuple[str, ...]
    encoder: str
    windowing: Windowing
    splits: list[SplitReport]
    overlaps: list[Overlap]
    faults: Findings

    @cached_property
    def training(self) -> SplitReport | None:
        """The split that is learned from: `train`, or the only one."""
        named = [split for split in self.splits if split.name == TRAIN]
        return named[0] if named else self.splits[0] if len(self.splits) == 1 else None

    @cached_property
    def absences(self) -> list[Absence]:
        """What dev and test have and train lacks, then what train has and they lack."""
        train = self.training
        others = [split for split in self.splits if split is not train]
        if train is None:
            return []
        found = [
            Absence(what, here.name, there.name, lacking(ours(here), ours(there)), here is train)
            for what, ours in (("labels", _labels), ("types", _types))
            for other in others
            for here, there in ((other, train), (train, other))
        ]
        return [absence for absence in found if absence.names]

    @cached_property
    def rare(self) -> dict[str, dict[str, int]]:
        """Labels and types with few training examples."""
        if self.training is None:
            return {"labels": {}, "types": {}}
        counts = self.training.counts
        return {"labels": few(counts.labels), "types": few(counts.types)}

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "sources": list(self.sources),
            "encoder": self.encoder,
            "max_length": self.windowing.max_length,
            "stride": self.windowing.stride,
            "splits": {split.name: split.to_dict() for split in self.splits},
            "overlaps": [overlap.to_dict() for overlap in self.overlaps],
            "absent": [vars(absence) for absence in self.absences],
            "rare": self.rare,
            "faults": self.faults.to_dict(),
        }


def examine(
    splits: Sequence[Split],
    measure: Measure,
    *,
    sources: Sequence[str],
    encoder: str,
    windowing: Windowing,
) -> Report:
    """Everything about splits that have been read; `sources` and `encoder` are only noted."""
    faults = Findings(limit=SHOWN_FAULTS)
    for split in splits:
        for fault in split.faults:
            faults.add(fault)
    return Report(
        sources=tuple(sources),
        encoder=encoder,
        windowing=windowing,
        splits=[_split_report(split, measure) for split in splits],
        overlaps=overlaps(splits),
        faults=faults,
    )


def _split_report(split: Split, measure: Measure) -> SplitReport:
    return SplitReport(
        name=split.name,
        counts=count(split.records),
        pieces=measure(split.records),
        repeats=repeats(split.records),
        tag_faults=tag_faults(split.records),
        faults=len(split.faults),
    )


def _labels(split: SplitReport) -> dict[str, int]:
    return split.counts.labels


def _types(split: SplitReport) -> dict[str, int]:
    return split.counts.types
