"""The highest rate at which a condition holds: bracket it, then bisect on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# How far a search goes from where it starts, as a factor, before it gives up.
_REACH = 100.0


@dataclass
class Search:
    """good: whether a rate holds; each call is a measurement. tolerance: relative, of the result.

    tried: every rate with what was found, in order.
    """

    good: Callable[[float], bool]
    tolerance: float
    tried: list[tuple[float, bool]] = field(default_factory=list)

    def highest(self, start: float, step: float) -> float | None:
        """The highest good rate that was tried, within the tolerance of one that is not good.

        From `start` it goes up or down by the factor `step` until the two lie on different sides.
        None where not even start / 100 is good; no more than start * 100 is tried.
        """
        assert start > 0
        assert step > 1
        low = high = start
        if self._try(start):
            while low < start * _REACH and self._try(high := low * step):
                low = high
            if low == high:
                return low
        else:
            while not self._try(low := high / step):
                high = low
                if low < start / _REACH:
                    return None
        while high / low > 1 + self.tolerance:
            middle = (low * high) ** 0.5
            if self._try(middle):
                low = middle
            else:
                high = middle
        return low

    def _try(self, rate: float) -> bool:
        found = self.good(rate)
        self.tried.append((rate, found))
        return found
