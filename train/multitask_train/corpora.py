"""The splits of a run, read from the sources that its settings name."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from multitask_core.errors import DataError
from multitask_core.labels import LabelSchema
from multitask_train.data import Example, read_examples
from multitask_train.data.features import collect_schema, label_names, unknown_labels
from multitask_train.data.sources import source_hash
from multitask_train.settings import FitSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpora:
    """The splits, and the hash of each split's sources by its name.

    labels, types: of all sentences of the training sources, also of those held out or left out by a
    limit, so that every seed's are the same.
    """

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    hashes: dict[str, str]
    labels: set[str]
    types: set[str]

    def schema(self) -> LabelSchema:
        """The labels of the training sources; warns of those that `train` does not show.

        Raises DataError where training lacks labels or entities, or another split shares none.
        """
        shown = collect_schema(self.train)
        for what, examples in (("dev", self.dev), ("test", self.test)):
            _check_names(what, examples, shown)
        return LabelSchema.collect(self.labels, self.types)


def read_corpora(settings: FitSettings) -> Corpora:
    """All splits; raises DataError."""
    data = settings.data
    if not data.train:
        raise DataError("data.train names no source; training needs one")
    if not data.dev and not data.holdout:
        raise DataError(
            "data.dev names no source; name one, or hold out a share of the training data with "
            "data.holdout, such as 0.1"
        )
    labels: set[str] = set()
    types: set[str] = set()
    train: list[Example] = []
    held: list[Example] = []
    for source in data.train:
        part = read_examples(source, "train")
        of_labels, of_types = label_names(part)
        labels |= of_labels
        types |= of_types
        kept, away = _split(part, data.holdout)
        if not kept:
            raise DataError(
                f"data.holdout {data.holdout} holds out all {len(part)} sentences of {source}, so "
                "that none is left to train on; give a smaller share"
            )
        kept = _limited(kept, data.limit, settings.run.seed)
        log.info("train: %s, %d examples, %d held out", Path(source).name, len(kept), len(away))
        train += kept
        held += away
    dev = [*_read(data.dev, "dev"), *held]
    if not dev:
        raise DataError(
            f"data.holdout {data.holdout} holds out none of so few sentences, and data.dev names "
            "no source; give a larger share"
        )
    sources = {"train": data.train, "dev": data.dev, "test": data.test}
    hashes = {split: _hash(named, split) for split, named in sources.items()}
    return Corpora(train, dev, _read(data.test, "test"), hashes, labels, types)


def _hash(sources: Iterable[str], split: str) -> str:
    hashes = " ".join(source_hash(source, split) for source in sources)
    return hashlib.sha256(hashes.encode()).hexdigest()


def _check_names(split: str, examples: Iterable[Example], schema: LabelSchema) -> None:
    """Warn of labels and types that the schema lacks; raise DataError where it has none of them."""
    unknown = unknown_labels(examples, schema)
    if unknown and len(unknown) == sum(map(len, label_names(examples))):
        raise DataError(
            f"data.{split} shares no label and no entity type with data.train, so that every "
            f"answer would be wrong; it has {', '.join(unknown[:8])}: name another --data.{split}"
        )
    if unknown:
        log.warning(
            "%s holds labels or types that training never shows, so they count as wrong: %s",
            split,
            ", ".join(unknown),
        )


def _read(sources: Iterable[str], split: str) -> list[Example]:
    examples: list[Example] = []
    for source in sources:
        part = read_examples(source, split)
        log.info("%s: %s, %d examples", split, Path(source).name, len(part))
        examples.extend(part)
    return examples


def _split(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """A random share held out, both parts in their own order; the same in every run."""
    count = round(share * len(examples))
    away = set(random.Random("holdout").sample(range(len(examples)), count))  # noqa: S311
    kept = [one for at, one in enumerate(examples) if at not in away]
    return kept, [examples[at] for at in sorted(away)]


def _limited(examples: list[Example], limit: int, seed: int) -> list[Example]:
    """A random `limit` of them in their own order; all with 0."""
    if not 0 < limit < len(examples):
        return examples
    chosen = random.Random(seed).sample(range(len(examples)), limit)  # noqa: S311  no secret
    return [examples[index] for index in sorted(chosen)]
