"""A server's figures at one point, a value of each a round, on their way to the result file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from multitask_benchmarks.results import Better, Measured, Metric, Point
from multitask_benchmarks.serving.meter import Spent
from multitask_benchmarks.stats import LEAST_CALLS, Estimate, estimate

_DOWN: tuple[str, Better] = ("ms", "lower")
# Unit and better direction of every figure.
UNITS: dict[str, tuple[str, Better]] = {
    # the client's view
    "p50_ms": _DOWN,
    "p95_ms": _DOWN,
    "p99_ms": _DOWN,
    "mean_ms": _DOWN,
    "sent_per_s": ("1/s", ""),
    "answers_per_s": ("1/s", "higher"),
    "texts_per_s": ("1/s", "higher"),
    "answered_share": ("", "higher"),
    "late_p50_ms": ("ms", ""),
    "late_p99_ms": ("ms", ""),
    "max_rate_per_s": ("1/s", "higher"),
    "within_share": ("", "higher"),
    "long_share": ("", ""),
    # Triton's view: means a text
    "queue_ms": _DOWN,
    "compute_ms": _DOWN,
    "outside_ms": _DOWN,
    "mean_batch": ("texts", ""),
    # what it costs
    "server_cpu_ms_a_text": _DOWN,
    "client_cpu_ms_a_text": _DOWN,
    "server_rss_mib": ("MiB", "lower"),
    "server_pss_mib": ("MiB", "lower"),
    # starting
    "ready_s": ("s", "lower"),
    "first_answer_s": ("s", "lower"),
    "first_ms": _DOWN,
    "warm_ms": _DOWN,
    "first_to_warm": ("", "lower"),
    "stop_s": ("s", "lower"),
    "start_cpu_s": ("s", "lower"),
    "ready_rss_mib": ("MiB", "lower"),
    "ready_pss_mib": ("MiB", "lower"),
}


@dataclass
class Figures:
    """Values by name, one a round; a round in which a figure could not be had leaves it out."""

    subject: str
    point: Point
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, found: Mapping[str, float | None]) -> None:
        """Append one round."""
        for name, value in found.items():
            assert name in UNITS, f"a figure without a unit: {name}"
            if value is not None:
                self.values.setdefault(name, []).append(value)

    def measured(self) -> Measured:
        """For the result file; a percentile that a round had too few calls for is left out."""
        most = max(map(len, self.values.values()), default=0)
        metrics = {
            name: Metric.of(values, *UNITS[name])
            for name, values in self.values.items()
            if len(values) == most or name not in LEAST_CALLS
        }
        return Measured(self.subject, self.point, metrics)

    def estimate(self, name: str) -> Estimate | None:
        """Over the rounds so far; None where the figure was never had."""
        values = self.values.get(name)
        return estimate(values) if values else None

    def median(self, name: str) -> float | None:
        """As `estimate`, for tables."""
        found = self.estimate(name)
        return found.median if found else None


def triton_view(spent: Spent) -> dict[str, float | None]:
    """Means a text of Triton's queue and compute, and texts in a batch; None for other servers."""
    counted = spent.triton
    if not counted or not counted.inferences or not counted.executions:
        return dict.fromkeys(("queue_ms", "compute_ms", "mean_batch"))
    return {
        "queue_ms": counted.queue_ms / counted.inferences,
        "compute_ms": counted.compute_ms / counted.inferences,
        "mean_batch": counted.inferences / counted.executions,
    }


def costs(spent: Spent, client_cpu_s: float, texts: int) -> dict[str, float | None]:
    """CPU a text of server and client, and the server's memory."""
    return {
        "server_cpu_ms_a_text": 1e3 * spent.cpu_s / texts if spent.cpu_s and texts else None,
        "client_cpu_ms_a_text": 1e3 * client_cpu_s / texts if texts else None,
        "server_rss_mib": spent.rss_mib,
        "server_pss_mib": spent.pss_mib,
    }
