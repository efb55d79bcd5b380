"""A report → what to do about each finding, in one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from multitask_train.inspection.report import TRAIN, Absence, Report, SplitReport

# From here on the commonest label crowds out the rarest.
IMBALANCE = 10
_NAMES = 8
_NOUNS = {"labels": ("label", "labels"), "types": ("entity type", "entity types")}


class Advice(NamedTuple):
    """A fault keeps `fit` from training; a warning says what the model or its figures will lack."""

    level: Literal["fault", "warning"]
    text: str


def advise(report: Report) -> list[Advice]:
    """One line for each finding, the gravest first; empty where nothing was found."""
    warnings = [
        *_missing(report),
        *(_absence(absence) for absence in report.absences),
        *_overlaps(report),
        *_training(report),
        *(line for split in report.splits for line in _annotation(split)),
        *(line for split in report.splits for line in _pieces(split, report)),
    ]
    return [*_faults(report), *(Advice("warning", text) for text in warnings)]


def plural(number: int, one: str, many: str) -> str:
    """`1 text`, `1,200 texts`."""
    return f"{number:,} {one if number == 1 else many}"


def percent(share: float) -> str:
    """`1.4%`; what is there but rounds to nothing is `under 0.1%`."""
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _faults(report: Report) -> Iterator[Advice]:
    if number := report.faults.count:
        yield Advice(
            "fault",
            f"{plural(number, 'fault', 'faults')} in what was read: mend what is listed above; "
            "`fit` refuses these files until then",
        )


def _missing(report: Report) -> Iterator[str]:
    train = report.training
    if train is None or not train.counts.sentences:
        return
    if train.name == TRAIN and len(report.splits) > 1:
        yield from _dev(train, [split for split in report.splits if split.name == "dev"])
    for what, number in _annotated(train).items():
        if not number:
            yield (
                f"no sentence of {train.name} carries {what}: for a model with both heads give a "
                "corpus that has them beside this one (--data.train takes a list)"
            )


def _dev(train: SplitReport, found: Sequence[SplitReport]) -> Iterator[str]:
    if not found:
        yield (
            "there is no dev, by which `fit` chooses the epoch and fits the temperatures: set "
            "part of train aside with --data.holdout, or give another corpus as --data.dev"
        )
    for dev in found:
        for what, number in _annotated(dev).items():
            if dev.counts.sentences and not number and _annotated(train)[what]:
                yield (
                    f"dev carries no {what}, which train has: the epoch is chosen without them and "
                    "no temperature is fitted for their scores; set part of train aside for dev too"
                )


def _annotated(split: SplitReport) -> dict[str, int]:
    return {"labels": split.counts.labelled, "entities": split.counts.tagged}


def _absence(absence: Absence) -> str:
    what = plural(len(absence.names), *_NOUNS[absence.what])
    names = _listed(absence.names)
    if absence.learned:
        return (
            f"{absence.there} lacks {what} of {absence.here} ({names}): its figures say nothing "
            "about them; add such sentences"
        )
    return (
        f"{absence.here} has {what} that {absence.there} lacks ({names}): no model answers them, "
        "so they count as wrong; add training sentences or correct the names"
    )


def _overlaps(report: Report) -> Iterator[str]:
    for one in report.overlaps:
        if not one.folded:
            continue
        differ = one.folded - one.exact
        but = f" ({differ:,} in other letter case or white space)" if differ else ""
        yield (
            f"{one.folded:,} of {one.sentences:,} {one.split} sentences also stand in "
            f"{one.within}{but}: the {one.split} figure flatters; remove them from {one.within} "
            "or say so beside the figure"
        )
        if one.contradictions:
            yield (
                f"{plural(one.contradictions, 'of these has', 'of these have')} other labels or "
                f"entities in {one.within}: decide for one annotation"
            )


def _training(report: Report) -> Iterator[str]:
    train = report.training
    if train is None:
        return
    for what, names in report.rare.items():
        if names:
            yield (
                f"{plural(len(names), *_NOUNS[what])} of {train.name} with fewer than 5 examples "
                f"({_listed([f'{name}: {number}' for name, number in names.items()])}): collect "
                "more, or merge them with others"
            )
    if train.counts.imbalance >= IMBALANCE:
        yield (
            f"the commonest label of {train.name} has {train.counts.imbalance:,.0f} times the "
            "sentences of the rarest: judge by macro F1 and try --loss.class_weights balanced"
        )
    if len(train.counts.labels) == 1:
        yield f"all sentences of {train.name} carry one label: there is nothing to tell apart"
    if again := train.repeats.folded:
        yield (
            f"{plural(again, 'sentence', 'sentences')} of {train.name} "
            f"({percent(again / train.counts.sentences)}) repeat an earlier one: such texts weigh "
            "more in training; remove the repeats unless they are as common in use"
        )


def _annotation(split: SplitReport) -> Iterator[str]:
    if number := split.repeats.contradictions.count:
        yield (
            f"{plural(number, 'text', 'texts')} of {split.name} with several labels or "
            "entities for the same words: no model can get both right; decide for one"
        )
    if number := split.tag_faults.count:
        yield (
            f"{plural(number, 'BIO tag', 'BIO tags')} of {split.name} continue no entity of their "
            "type: each is read as the beginning of a new one; mend the tags or the program that "
            "wrote them"
        )


def _pieces(split: SplitReport, report: Report) -> Iterator[str]:
    pieces, name = split.pieces, split.name
    if pieces.long_texts:
        yield (
            f"{plural(pieces.long_texts, 'text', 'texts')} of {name} (longest: "
            f"{pieces.pieces.max:,} word pieces) beyond the window of "
            f"{report.windowing.max_length}, read in {pieces.long_windows:,} overlapping "
            "windows, each with the text's label; nothing is cut, but a longer --model.max_length "
            "sees more at once"
        )
    if pieces.lost_words.count:
        yield (
            f"{plural(pieces.lost_words.count, 'word', 'words')} of {name} give no word piece with "
            f"{report.encoder}, so they can carry no tag: remove invisible characters, or choose "
            "an encoder whose tokenizer keeps them"
        )
    if pieces.empty_texts.count:
        yield (
            f"{plural(pieces.empty_texts.count, 'text', 'texts')} of {name} without any word "
            "piece: the encoder sees nothing of them; remove them"
        )
    if pieces.unknown:
        yield (
            f"{plural(pieces.unknown, 'word piece', 'word pieces')} of {name} "
            f"({percent(pieces.unknown_share)}) unknown to {report.encoder}, which cannot tell "
            "them apart: replace those characters, or choose an encoder that has them"
        )
    if pieces.changed_entities.count:
        yield (
            f"{pieces.changed_entities.count:,} of {pieces.entities:,} entities of {name} cannot "
            "be learned as annotated, for they begin or end inside a word or hold none: move their "
            "boundaries to whole words"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
