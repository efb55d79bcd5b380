"""What a series over time says: growth with its confidence, and when a disturbance was over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from multitask_benchmarks.serving.arrivals import Float64
from multitask_benchmarks.serving.calls import Calls

_RESAMPLES = 2000


class Slope(NamedTuple):
    """Change an hour, with its 95 % interval; None where there are too few points."""

    per_hour: float | None
    low: float | None
    high: float | None

    @property
    def grows(self) -> bool:
        """Whether growth is beyond doubt."""
        return self.low is not None and self.low > 0


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares, with a moving-block bootstrap of the residuals, since neighbours are alike.

    Blocks are twice as long as the cube root of the series; the generator is seeded. (Künsch 1989)
    """
    if len(values) < 8 or times_s[-1] <= times_s[0]:
        return Slope(None, None, None)
    hours = (np.asarray(times_s, np.float64) - times_s[0]) / 3600
    series = np.asarray(values, np.float64)
    centred = hours - hours.mean()
    weights = centred / (centred @ centred)
    found = float(weights @ series)
    residuals = series - series.mean() - found * centred
    resampled = found + _blocks(residuals) @ weights
    low, high = np.percentile(resampled, (2.5, 97.5)).tolist()
    return Slope(round(found, 3), round(low, 3), round(high, 3))


def _blocks(residuals: Float64) -> Float64:
    """Series of the same length, put together from random stretches of this one."""
    count = len(residuals)
    length = max(2, round(2 * count ** (1 / 3)))
    random = np.random.default_rng(0)
    first = random.integers(0, count - length + 1, (_RESAMPLES, -(-count // length), 1))
    indices = (first + np.arange(length)).reshape(_RESAMPLES, -1)[:, :count]
    drawn: Float64 = residuals[indices]
    return drawn


class Bin(NamedTuple):
    """Calls that were to be sent within one stretch; percentiles of those that were answered."""

    start_s: float
    sent: int
    answered: int
    p50_ms: float | None
    p99_ms: float | None


def bins(calls: Calls, start_s: float, seconds: float, width_s: float) -> list[Bin]:
    """The calls of [start_s, start_s + seconds) by the time at which they were to be sent."""
    sent_s = np.asarray(calls.start_s) - start_s
    latency_ms = np.asarray(calls.latency_ms)
    good = np.asarray([one == "OK" for one in calls.status])
    result = []
    for left_s in np.arange(0.0, seconds - 1e-9, width_s).tolist():
        inside = (sent_s >= left_s) & (sent_s < left_s + width_s)
        answered = latency_ms[inside & good]
        p50_ms: float | None = None
        p99_ms: float | None = None
        if len(answered):
            found = np.percentile(answered, (50, 99), method="inverted_cdf").tolist()
            p50_ms, p99_ms = (round(value, 3) for value in found)
        result.append(Bin(round(left_s, 3), int(inside.sum()), len(answered), p50_ms, p99_ms))
    return result


def recovery_s(after: Sequence[Bin], width_s: float, limit_ms: float) -> float | None:
    """Seconds until a bin in which all was answered with its p99 within the limit has ended.

    None where there is none.
    """
    for one in after:
        if one.p99_ms is not None and one.answered == one.sent and one.p99_ms <= limit_ms:
            return round(one.start_s + width_s, 3)
    return None
