"""What came of a run's calls, as arrays: one entry a call, in the order in which they ended."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from multitask_benchmarks.stats import RoundStats, round_stats
from multitask_client.errors import CallError
from multitask_core.errors import ClientError

ANSWERED = "OK"
_REASON_CHARS = 60


@dataclass
class Calls:
    """index: which text; start_s: when it was (to be) sent, on time.monotonic's clock.

    latency_ms counts from start_s. late_ms: how much later than that it was really sent. status:
    OK, or the error's with its reason. replies: raw, empty for failures; only where they were asked
    for. seconds and client_cpu_s: of the whole run.
    """

    index: list[int] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    client_cpu_s: float = 0.0

    def __len__(self) -> int:
        return len(self.index)

    def add(self, index: int, start_s: float, sent_s: float, end_s: float, status: str) -> None:
        """Append one call; times on one clock, in seconds."""
        self.index.append(index)
        self.start_s.append(start_s)
        self.late_ms.append(1e3 * (sent_s - start_s))
        self.latency_ms.append(1e3 * (end_s - start_s))
        self.status.append(status)

    def failed(self, error: CallError) -> str:
        """The error's status with its reason; the first whole message is kept as an example."""
        status = f"{error.status or type(error).__name__}: {_reason(str(error))}"
        self.examples.setdefault(status, str(error))
        return status

    def extend(self, other: Calls) -> None:
        """Append another generator's calls of the same time."""
        for name in ("index", "start_s", "latency_ms", "late_ms", "status", "replies"):
            getattr(self, name).extend(getattr(other, name))
        self.examples = {**other.examples, **self.examples}
        self.seconds = max(self.seconds, other.seconds)
        self.client_cpu_s += other.client_cpu_s

    def where(self, keep: Sequence[bool] | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Calls:
        """The calls whose flag is set; replies, seconds and CPU are left out."""
        chosen = np.flatnonzero(np.asarray(keep)).tolist()
        return Calls(
            index=[self.index[at] for at in chosen],
            start_s=[self.start_s[at] for at in chosen],
            latency_ms=[self.latency_ms[at] for at in chosen],
            late_ms=[self.late_ms[at] for at in chosen],
            status=[self.status[at] for at in chosen],
        )

    def answered(self) -> Calls:
        """Those that were answered."""
        return self.where([one == ANSWERED for one in self.status])

    def refused(self) -> Calls:
        """Those that were not."""
        return self.where([one != ANSWERED for one in self.status])

    def statuses(self) -> dict[str, int]:
        """How often each status came, the most frequent first."""
        return dict(Counter(self.status).most_common())

    def stats(self) -> RoundStats:
        """Percentiles and rate of what was answered; raises ClientError for a failure."""
        if failed := len(self) - self.status.count(ANSWERED):
            shown = "; ".join(f"{name}: {text}" for name, text in self.examples.items())
            raise ClientError(f"{failed} of {len(self)} calls failed: {shown}")
        return round_stats(self.latency_ms, len(self), self.seconds)


def _reason(message: str) -> str:
    """A message without address, numbers and advice, so that equal reasons count together."""
    plain = re.sub(r"^\S+:\d+: |\[request id: [^]]*\] ", "", message).partition(" (")[0]
    return re.sub(r"\d+", "#", plain)[:_REASON_CHARS].strip()


def percentiles(values_ms: Sequence[float]) -> dict[str, float | int | None]:
    """Count, p50, p95, p99 and largest, in ms; nearest rank, None where there is no value."""
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    if not len(values_ms):
        return {"count": 0, **dict.fromkeys(names)}
    found = np.percentile(values_ms, (50, 95, 99, 100), method="inverted_cdf").tolist()
    rounded = (round(value, 3) for value in found)
    return {"count": len(values_ms), **dict(zip(names, rounded, strict=True))}
