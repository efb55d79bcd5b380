"""Is a figure better or worse than before, beyond noise?

A share (no unit) is compared by the difference in place of a ratio: 99 % answered after 100 % is a
change of one point. Machines drift between runs, so where a run has a baseline at the same point
each round's value is divided by the baseline's of the same round, and these quotients are compared.
What has no baseline, and the baseline itself, is compared as it stands, with a wider threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from multitask_benchmarks.results import Better

WORSE, BETTER, SAME, UNCLEAR = "worse", "better", "same", "within noise"
LEAST_ROUNDS = 3
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Thresholds:
    """Changes up to these are not called: relative to a baseline, and as they stand."""

    relative: float = 0.05
    absolute: float = 0.15


@dataclass(frozen=True)
class Change:
    """After / before of one figure with its 95 % interval; relative: both against a baseline.

    Of a share, 1 + after - before.

    before, after: medians as measured, not divided by the baseline.
    """

    before: float
    after: float
    ratio: float
    low: float
    high: float
    relative: bool
    verdict: str


def judge(
    before: Sequence[float],
    after: Sequence[float],
    better: Better,
    thresholds: Thresholds,
    baselines: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Change:
    """Compare rounds of one figure; baselines: those of the baseline in the same rounds.

    A change is called where its whole interval lies beyond the threshold; it is within noise where
    the interval reaches beyond the threshold and back, or where there are too few rounds.
    """
    values = (before, after)
    if baselines is not None and _pairs(values, baselines):
        values = (_quotients(before, baselines[0]), _quotients(after, baselines[1]))
        relative, threshold = True, thresholds.relative
    else:
        relative, threshold = False, thresholds.absolute
    medians = float(np.median(before)), float(np.median(after))
    if min(map(min, values)) <= 0:  # a share of nothing has no ratio
        verdict = SAME if medians[0] == medians[1] else UNCLEAR
        return Change(*medians, float("nan"), float("nan"), float("nan"), relative, verdict)
    ratio, low, high = ratio_of_medians(*values)
    verdict = _verdict(low, high, better, threshold)
    if min(len(before), len(after)) < LEAST_ROUNDS and verdict != SAME:
        verdict = UNCLEAR
    return Change(*medians, ratio, low, high, relative, verdict)


def judge_shares(
    before: Sequence[float], after: Sequence[float], better: Better, thresholds: Thresholds
) -> Change:
    """`judge` of shares: called where the whole difference lies beyond `thresholds.relative`."""
    medians, drawn = (float(np.median(before)), float(np.median(after))), _resampled(before, after)
    low, high = (1 + np.percentile(drawn[1] - drawn[0], (2.5, 97.5))).tolist()
    verdict = _verdict(low, high, better, thresholds.relative)
    if min(len(before), len(after)) < LEAST_ROUNDS and verdict != SAME:
        verdict = UNCLEAR
    return Change(*medians, 1 + medians[1] - medians[0], low, high, relative=False, verdict=verdict)


def ratio_of_medians(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """median(after) / median(before) with a 95 % percentile bootstrap."""
    drawn = _resampled(before, after)
    low, high = np.percentile(drawn[1] / drawn[0], (2.5, 97.5)).tolist()
    return float(np.median(after) / np.median(before)), low, high


def _resampled(before: Sequence[float], after: Sequence[float]) -> list[npt.NDArray[np.float64]]:
    """Medians of both sides' rounds, each drawn anew with replacement.

    The generator is seeded: equal rounds give equal intervals. (Efron & Tibshirani 1993, ch. 13)
    """
    random = np.random.default_rng(0)
    return [
        np.median(random.choice(np.asarray(rounds), (_RESAMPLES, len(rounds))), axis=1)
        for rounds in (before, after)
    ]


def _verdict(low: float, high: float, better: Better, threshold: float) -> str:
    """Symmetric: 5 % fewer requests a second are 1/0.95 times the latency."""
    floor = 1 - threshold
    if low > 1 / floor:
        return BETTER if better == "higher" else WORSE
    if high < floor:
        return WORSE if better == "higher" else BETTER
    return SAME if low >= floor and high <= 1 / floor else UNCLEAR


def _pairs(
    values: tuple[Sequence[float], Sequence[float]],
    baselines: tuple[Sequence[float], Sequence[float]],
) -> bool:
    """Whether every round of both runs has its baseline."""
    return all(
        len(mine) == len(base) and min(base) > 0
        for mine, base in zip(values, baselines, strict=True)
    )


def _quotients(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    return [value / base for value, base in zip(values, baseline, strict=True)]
