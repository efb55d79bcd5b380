"""Is every answer the one that its version had to give?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multitask_benchmarks.agreement import brief, spans
from multitask_benchmarks.serving.calls import ANSWERED, Calls
from multitask_benchmarks.serving.endpoint import Endpoint, Reply
from multitask_client.errors import ServerError
from multitask_core.prediction import Prediction

SCORE_TOLERANCE = 1e-3
_SHOWN = 5


@dataclass
class Verdict:
    """Counts over all calls; wrong, unreadable and of_no_version answers are what must not be.

    matching_only_other: wrong answers that another artifact would have given, which tells a mix-up
    of versions from a broken answer.
    """

    calls: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    by_version: dict[str, int] = field(default_factory=dict)
    wrong: int = 0
    matching_only_other: int = 0
    unreadable: int = 0
    of_no_version: int = 0
    largest_score_difference: float = 0.0
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Calls that were not answered as they should have been."""
        return sum(self.failed.values()) + self.wrong + self.unreadable + self.of_no_version

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "faults": self.faults}


def judge(
    calls: Calls,
    endpoint: Endpoint,
    artifacts: Mapping[str, str],
    expected: Mapping[str, Sequence[Prediction]],
    tolerance: float = SCORE_TOLERANCE,
) -> Verdict:
    """Compare every reply with what the artifact of its version answers to its text.

    artifacts: version → name of its artifact. expected: name → answers in the order of the texts.
    """
    result = Verdict(len(calls))
    result.failed = {name: n for name, n in calls.statuses().items() if name != ANSWERED}
    versions: Counter[str] = Counter()
    for index, status, raw in zip(calls.index, calls.status, calls.replies, strict=True):
        if status != ANSWERED:
            continue
        try:
            reply = endpoint.read(raw)
        except ServerError as error:
            result.unreadable += 1
            _show(result, endpoint.texts[index], str(error), "")
            continue
        versions[reply.version] += 1
        _judge_one(result, endpoint.texts[index], index, reply, artifacts, expected, tolerance)
    result.by_version = dict(sorted(versions.items(), key=lambda one: one[0].zfill(9)))
    return result


def difference(answer: Prediction, wanted: Prediction) -> float | None:
    """Largest difference of a score; None where label or entities differ."""
    if answer.label != wanted.label or spans(answer) != spans(wanted):
        return None
    pairs = zip(answer.entities, wanted.entities, strict=True)
    return max([abs(answer.score - wanted.score), *(abs(a.score - b.score) for a, b in pairs)])


def distinguishing(
    left: Sequence[Prediction], right: Sequence[Prediction], tolerance: float
) -> int:
    """Texts whose answer tells which of two artifacts gave it."""
    pairs = zip(left, right, strict=True)
    return sum(not _same(difference(one, other), tolerance) for one, other in pairs)


def _judge_one(
    result: Verdict,
    text: str,
    index: int,
    reply: Reply,
    artifacts: Mapping[str, str],
    expected: Mapping[str, Sequence[Prediction]],
    tolerance: float,
) -> None:
    name = artifacts.get(reply.version)
    if name is None:
        result.of_no_version += 1
        _show(result, text, f"version {reply.version}", f"one of {', '.join(artifacts)}")
        return
    found = difference(reply.prediction, expected[name][index])
    if found is not None:
        result.largest_score_difference = max(result.largest_score_difference, found)
    if _same(found, tolerance):
        return
    result.wrong += 1
    others = (answers[index] for other, answers in expected.items() if other != name)
    result.matching_only_other += any(
        _same(difference(reply.prediction, one), tolerance) for one in others
    )
    _show(result, text, _brief(reply), brief(expected[name][index]))


def _same(found: float | None, tolerance: float) -> bool:
    return found is not None and found <= tolerance


def _brief(reply: Reply) -> str:
    return f"version {reply.version}: {brief(reply.prediction)} {reply.prediction.score:.4f}"


def _show(result: Verdict, text: str, answer: str, wanted: str) -> None:
    if len(result.examples) < _SHOWN:
        result.examples.append({"text": text, "answer": answer, "expected": wanted})
