"""A new version against the live one: the same sentences to both, over gRPC, in turns.

Sentences are JSON lines, `{"text": …, "label": …, "entities": [{"start", "end", "type"}]}`; with a
label or entities the agreement with them is measured too. Latency is that of single requests as a
caller sees it, while the live version serves its traffic.
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multitask_client import Client
from multitask_client.errors import BadRequest
from multitask_core.errors import ConfigError, DataError
from multitask_core.prediction import Prediction

Spans = frozenset[tuple[int, int, str]]
Predict = Callable[[str], Prediction | BadRequest]


@dataclass(frozen=True)
class Sentence:
    """A text and what is known of it; None where it is not annotated."""

    text: str
    label: str | None = None
    spans: Spans | None = None


@dataclass(frozen=True)
class Budget:
    """How far a new version may stand from the live one.

    labels, entities: largest share of sentences whose label, or whose entities, change. latency:
    largest ratio of the medians.
    """

    labels: float = 0.02
    entities: float = 0.05
    latency: float = 1.5

    def __post_init__(self) -> None:
        for name, share in (("label", self.labels), ("entity", self.entities)):
            if not 0 <= share <= 1:
                raise ConfigError(f"--max-{name}-changes {share}: a share from 0 to 1")
        if not self.latency > 0:
            raise ConfigError(f"--max-latency-ratio {self.latency}: a ratio above 0")


@dataclass(frozen=True)
class Side:
    """One version's figures; latencies in ms.

    refused: sentences that it did not answer. accuracy: share of right labels, f1: of entities,
    strict and micro-averaged; None without annotation.
    """

    median_ms: float
    p95_ms: float
    refused: int
    accuracy: float | None
    f1: float | None


@dataclass(frozen=True)
class Comparison:
    """What was found. label_changes, entity_changes: shares of the sentences."""

    sentences: int
    label_changes: float
    entity_changes: float
    latency_ratio: float
    live: Side
    new: Side

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def refusals(self, budget: Budget) -> list[str]:
        """Why the new version must not go live; empty where it may."""
        checks = (
            ("labels changed", self.label_changes, budget.labels, "--max-label-changes"),
            ("entities changed", self.entity_changes, budget.entities, "--max-entity-changes"),
        )
        found = [
            f"{what} in {share:.1%} of {self.sentences} sentences, {limit:.1%} allowed ({flag})"
            for what, share, limit, flag in checks
            if share > limit
        ]
        if self.latency_ratio > budget.latency:
            found.append(
                f"its median latency is {self.latency_ratio:.2f} times the live one's, "
                f"{budget.latency:g} allowed (--max-latency-ratio)"
            )
        return found

    def table(self, live: int, new: int) -> str:
        """For people."""
        rows = [
            ("", f"version {live}, live", f"version {new}, new"),
            ("median latency", f"{self.live.median_ms:.2f} ms", f"{self.new.median_ms:.2f} ms"),
            ("p95 latency", f"{self.live.p95_ms:.2f} ms", f"{self.new.p95_ms:.2f} ms"),
            ("right labels", _percent(self.live.accuracy), _percent(self.new.accuracy)),
            ("entity F1", _percent(self.live.f1), _percent(self.new.f1)),
            ("not answered", str(self.live.refused), str(self.new.refused)),
            ("labels changed", "", _percent(self.label_changes)),
            ("entities changed", "", _percent(self.entity_changes)),
        ]
        lines = [f"  {name:18}{left:>20}{right:>20}" for name, left, right in rows]
        return "\n".join([f"{self.sentences} sentences, asked in turns:", *lines])


def read_sentences(path: Path) -> list[Sentence]:
    """Read a JSONL file, gzipped or not; raises DataError naming file and line."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the sentences {path}: {error}") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path} holds no sentences: give JSON lines with the key 'text'")
    return [_sentence(path, number, line) for number, line in lines]


def compare(live: Client, new: Client, sentences: Sequence[Sentence]) -> Comparison:
    """Ask both for every sentence, each first in every other turn."""
    sides = [_predictor(client) for client in (live, new)]
    for predict in sides:  # connecting, and asking for the classes, is not the model's latency
        predict(sentences[0].text)
    answers: list[list[Prediction | BadRequest]] = [[], []]
    times_ms: list[list[float]] = [[], []]
    for turn, sentence in enumerate(sentences):
        for side in (0, 1) if turn % 2 else (1, 0):
            begin_s = time.perf_counter()
            answers[side].append(sides[side](sentence.text))
            times_ms[side].append((time.perf_counter() - begin_s) * 1e3)
    pairs = list(zip(*answers, strict=True))
    figures = [_side(sentences, *one) for one in zip(answers, times_ms, strict=True)]
    return Comparison(
        sentences=len(sentences),
        label_changes=_share(_label(one) != _label(other) for one, other in pairs),
        entity_changes=_share(_spans(one) != _spans(other) for one, other in pairs),
        latency_ratio=figures[1].median_ms / figures[0].median_ms,
        live=figures[0],
        new=figures[1],
    )


def _predictor(client: Client) -> Predict:
    return lambda text: client.predict_each([text])[0]


def _side(
    sentences: Sequence[Sentence],
    answers: Sequence[Prediction | BadRequest],
    times_ms: Sequence[float],
) -> Side:
    pairs = list(zip(sentences, answers, strict=True))
    labelled = [_label(answer) == one.label for one, answer in pairs if one.label is not None]
    return Side(
        median_ms=statistics.median(times_ms),
        p95_ms=sorted(times_ms)[int(0.95 * (len(times_ms) - 1))],
        refused=sum(isinstance(answer, BadRequest) for answer in answers),
        accuracy=_share(labelled) if labelled else None,
        f1=_f1([(one.spans, _spans(answer)) for one, answer in pairs if one.spans is not None]),
    )


def _f1(pairs: Sequence[tuple[Spans, Spans | None]]) -> float | None:
    """Micro F1 of exact spans: twice the right ones over all that were marked and all found."""
    right = sum(len(gold & (found or frozenset())) for gold, found in pairs)
    total = sum(len(gold) + len(found or ()) for gold, found in pairs)
    return 2 * right / total if total else None


def _share(flags: Any) -> float:  # noqa: ANN401  any iterable of truth values
    values = [bool(flag) for flag in flags]
    return sum(values) / len(values)


def _label(answer: Prediction | BadRequest) -> str | None:
    return answer.label if isinstance(answer, Prediction) else None


def _spans(answer: Prediction | BadRequest) -> Spans | None:
    if isinstance(answer, BadRequest):
        return None
    return frozenset((one.start, one.end, one.type) for one in answer.entities)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _sentence(path: Path, number: int, line: str) -> Sentence:
    try:
        record = json.loads(line)
        spans = record.get("entities")
        text, label = record["text"], record.get("label")
        if not isinstance(text, str) or not isinstance(label, str | None):
            raise TypeError("text and label must be strings")
        return Sentence(
            text,
            label,
            None
            if spans is None
            else frozenset((int(one["start"]), int(one["end"]), str(one["type"])) for one in spans),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}, line {number}: {type(error).__name__}: {error}; a sentence is one JSON "
            "object with text and, where known, label and entities (start, end, type)"
        ) from error
