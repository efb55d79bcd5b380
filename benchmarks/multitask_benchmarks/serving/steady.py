"""One server under Poisson arrivals of one rate, after a stretch in which it settles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multitask_benchmarks.serving.arrivals import Phase
from multitask_benchmarks.serving.calls import Calls
from multitask_benchmarks.serving.figures import costs, triton_view
from multitask_benchmarks.serving.meter import Meter
from multitask_benchmarks.serving.opened import Generators
from multitask_benchmarks.serving.servers import Server
from multitask_benchmarks.stats import LEAST_CALLS

SETTLE_S = 1.0

Figure = float | None


def hold(
    server: Server, generators: Generators, rate: float, seconds: float, seed: int
) -> tuple[Calls, dict[str, Figure]]:
    """The calls after settling, and what client, Triton and system say of them, by name.

    Latencies count from the intended times, so that a server which stalls cannot hide it. What the
    server counts (queue, compute, CPU) is of the settling too.
    """
    phases = [Phase("settle", rate, SETTLE_S), Phase("hold", rate, seconds)]
    with server.awake(), Meter(server.served) as meter:
        calls = generators.run(server.endpoint, phases, seed)
    counted = triton_view(meter.spent)
    spent = costs(meter.spent, calls.client_cpu_s, len(calls))
    held = after(calls, SETTLE_S)
    view = client_view(held, seconds, counted)
    view["answers_per_s"] = answers_within(calls, SETTLE_S, seconds) / seconds
    return held, {**view, **counted, **spent}


def after(calls: Calls, seconds: float) -> Calls:
    """The calls that were to be sent so long after the first one."""
    start_s = min(calls.start_s) + seconds
    return calls.where([one >= start_s for one in calls.start_s])


def answers_within(calls: Calls, start_s: float, seconds: float) -> int:
    """Answers that came in a stretch which begins so long after the first call.

    Whenever their calls were due: what a server owes at the end it has not answered in that time.
    """
    answered = calls.answered()
    ends_s = np.add(answered.start_s, np.divide(answered.latency_ms, 1e3)) - min(calls.start_s)
    return int(((ends_s >= start_s) & (ends_s < start_s + seconds)).sum())


def client_view(calls: Calls, seconds: float, counted: dict[str, Figure]) -> dict[str, Figure]:
    """Percentiles of what was answered; `outside_ms` is the mean that Triton does not see.

    That is the client, the wire and the server's own protocol; late_p50_ms and late_p99_ms are how
    late the generator itself was. A percentile of too few calls is left out.
    """
    answered = calls.answered()
    found: dict[str, Figure] = {
        "sent_per_s": len(calls) / seconds,
        "answered_share": len(answered) / len(calls) if len(calls) else None,
        **{f"late_p{one}_ms": _percentile(calls.late_ms, one) for one in (50, 99)},
        **{f"p{one}_ms": _percentile(answered.latency_ms, one) for one in (50, 95, 99)},
    }
    if len(answered):
        mean_ms = float(np.mean(answered.latency_ms))
        found["mean_ms"] = mean_ms
        queue_ms, compute_ms = counted["queue_ms"], counted["compute_ms"]
        if queue_ms is not None and compute_ms is not None:
            found["outside_ms"] = mean_ms - queue_ms - compute_ms
    return found


def within_share(calls: Calls, target_ms: float) -> float:
    """Share of all calls, refused ones too, that were answered within the target; 0 for none."""
    if not len(calls):
        return 0.0
    return sum(one <= target_ms for one in calls.answered().latency_ms) / len(calls)


def _percentile(values_ms: Sequence[float], percent: float) -> Figure:
    """Nearest rank; None where there are so few values that it is the largest one anyway."""
    if not len(values_ms) or len(values_ms) < LEAST_CALLS.get(f"p{percent:g}_ms", 1):
        return None
    return float(np.percentile(values_ms, percent, method="inverted_cdf"))
