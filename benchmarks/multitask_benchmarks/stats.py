"""Latencies → numbers that can be compared: percentiles of a round, estimates over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multitask_core.errors import ConfigError

NOISY_SPREAD = 0.15
# Lowest and highest of five rounds hold the median in 94 of 100 cases, those of three in 75.
LEAST_ROUNDS = 5
# Of fewer calls in a round the percentile is the slowest call, and says nothing of most others.
LEAST_CALLS = {"p95_ms": 20, "p99_ms": 100}
_RESAMPLES = 10_000


@dataclass(frozen=True)
class RoundStats:
    """One round of one subject; a call is a request to the server or one batch in process."""

    calls: int
    texts_per_s: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Estimate:
    """The median over rounds with its 95 % interval; spread is (largest - smallest) / median.

    Where the median is 0 the mean takes its place in it. Below `LEAST_ROUNDS` the interval is the
    lowest and the highest round, and `brackets` says so.
    """

    median: float
    low: float
    high: float
    spread: float

    @property
    def noisy(self) -> bool:
        """Whether the rounds differ so much that the median says little."""
        return self.spread > NOISY_SPREAD


def round_stats(latencies_ms: Sequence[float], texts: int, seconds: float) -> RoundStats:
    """Summarise one round; percentiles are nearest-rank, so each is a latency that occurred.

    Raises ConfigError for a round without a call.
    """
    if not latencies_ms or seconds <= 0:
        raise ConfigError("a round ended before its first call: raise --seconds")
    p50, p95, p99 = np.percentile(latencies_ms, (50, 95, 99), method="inverted_cdf").tolist()
    mean = float(np.mean(latencies_ms))
    return RoundStats(len(latencies_ms), texts / seconds, mean, p50, p95, p99)


def estimate(values: Sequence[float]) -> Estimate:
    """Median of one value a round, with a percentile bootstrap over the rounds.

    The generator is seeded: equal rounds give equal intervals. (Efron & Tibshirani 1993, ch. 13)
    """
    rounds = np.asarray(values, np.float64)
    assert len(rounds), "an estimate needs at least one round"
    draws = np.random.default_rng(0).choice(rounds, (_RESAMPLES, len(rounds)))
    low, high = np.percentile(np.median(draws, axis=1), (2.5, 97.5)).tolist()
    median = float(np.median(rounds))
    scale = median or float(rounds.mean())
    return Estimate(median, low, high, float(np.ptp(rounds)) / scale if scale else 0.0)


def brackets(rounds: int) -> str:
    """What the brackets behind a median over so many rounds hold, as a table's caption says it."""
    return "[95 % interval]" if rounds >= LEAST_ROUNDS else "[lowest, highest]"


def ratio(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """values / baseline, formed within each round so that slow minutes of the machine cancel."""
    return estimate([value / base for value, base in zip(values, baseline, strict=True)])
