"""When requests come in an open loop: a Poisson process whose rate changes from phase to phase.

Arrivals do not wait for answers, and a latency counts from the moment at which a request was to be
sent, so a server that stalls cannot hide it by keeping its callers from asking. (Tene, "How NOT to
measure latency": coordinated omission)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


class Phase(NamedTuple):
    """A stretch of time with one mean rate, in requests per second."""

    name: str
    rate: float
    seconds: float


def schedule(phases: Sequence[Phase], seed: int, share: float = 1.0) -> Float64:
    """Send times in seconds from the start, in order.

    share: the part of every rate that falls to one of several generators; independent Poisson
    processes add up to one, so each draws its own with another seed.
    """
    random = np.random.default_rng(seed)
    times = []
    for start_s, phase in zip(starts(phases), phases, strict=True):
        mean = phase.rate * share * phase.seconds
        # Given their number, a Poisson process's arrivals are uniform. (Ross, 2.3)
        number = random.poisson(mean)
        times.append(start_s + np.sort(random.uniform(0.0, phase.seconds, number)))
    return np.concatenate(times) if times else np.empty(0)


def starts(phases: Sequence[Phase]) -> list[float]:
    """When each phase begins, in seconds from the start."""
    return [0.0, *accumulate(phase.seconds for phase in phases)][:-1]


def duration_s(phases: Sequence[Phase]) -> float:
    """Length of all phases."""
    return sum(phase.seconds for phase in phases)
