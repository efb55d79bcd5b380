"""Three times the capacity, and the recovery from it.

    python -m multitask_benchmarks serving overload --repository triton_models \\
        --artifact artifacts/demo --data data/demo/test.jsonl

First 64 callers in a closed loop measure the capacity, and one caller the unloaded latency. Then an
open loop, Poisson arrivals from processes of their own, without a break: half the capacity, three
times the capacity, half of it again. Latency counts from the time at which a request was to be
sent; how late the generator really was is reported beside it, and a run whose generator was late
says more of the generator than of the server.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import make_table
from multitask_benchmarks.results import Measured, Metric
from multitask_benchmarks.serving.alone import serve_alone
from multitask_benchmarks.serving.arrivals import Phase, starts
from multitask_benchmarks.serving.calls import Calls, percentiles
from multitask_benchmarks.serving.closed import capacity
from multitask_benchmarks.serving.opened import Generators
from multitask_benchmarks.serving.processes import Sample, Watch
from multitask_benchmarks.serving.served import Served, parse_repository
from multitask_benchmarks.serving.servers import add_check_arguments
from multitask_benchmarks.serving.trends import bins, recovery_s
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_benchmarks.texts import read_texts

BEFORE, OVERLOAD, AFTER = "before", "overload", "after"
_BIN_S = 0.5
_MEMORY_S = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving overload`."""
    add = parser.add_argument
    add_check_arguments(parser)
    add("--artifact", type=Path, help="names the model in the result file")
    add("--factor", type=float, default=3.0, help="times the capacity (default: %(default)s)")
    add("--seconds", type=float, default=10.0, help="of overload (default: %(default)s)")
    add("--half-seconds", type=float, default=10.0,
        help="of half load before, and after it (default: %(default)s)")  # fmt: skip
    add("--capacity", type=float, default=0.0, help="requests/s; 0 measures it (default)")
    add("--callers", type=int, default=64, help="that measure the capacity [%(default)s]")
    add("--generators", type=int, default=2, help="processes that send (default: %(default)s)")
    add("--slack", type=float, default=1.5,
        help="recovered when p99 is within this times its value before [%(default)s]")  # fmt: skip
    add("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(
        options, "factor", "seconds", "half_seconds", "callers", "generators", "texts", "slack"
    )
    name, repository = parse_repository(options.repository)
    texts = read_texts(options.data, options.texts)
    with (
        serve_alone(name, repository, texts, options) as (served, about),
        Generators(options.generators) as generators,
    ):
        result = measure(served, generators, texts, options)
    record = make_record(options, measurements=measured(result), details={**about, **result})
    return finish(options, record, tables(result), brief(result))


def measure(
    served: Served, generators: Generators, texts: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Capacity, unloaded latency, then the three phases."""
    endpoint = GrpcEndpoint(served.url, texts, channels=2)
    with tqdm(total=3, desc="overload", leave=False) as bar:
        closed = capacity(endpoint, options.callers)
        bar.update()
        single = capacity(endpoint, 1)
        bar.update()
        rate = options.capacity or closed.texts_per_s
        phases = [
            Phase(BEFORE, 0.5 * rate, options.half_seconds),
            Phase(OVERLOAD, options.factor * rate, options.seconds),
            Phase(AFTER, 0.5 * rate, options.half_seconds),
        ]
        with Watch(served.pid, _MEMORY_S) as watch:
            calls = generators.run(endpoint, phases, options.seed)
        bar.update()
    return {
        "capacity_per_s": round(rate, 1),
        "unloaded": {"p50_ms": single.p50_ms, "p99_ms": single.p99_ms},
        "closed_loop": {"callers": options.callers, "p99_ms": closed.p99_ms},
        **analyse(calls, phases, options.slack),
        "memory": memory(watch.samples, min(calls.start_s)),
        "client_cpu_cores": round(calls.client_cpu_s / calls.seconds, 3),
    }


def analyse(calls: Calls, phases: Sequence[Phase], slack: float) -> dict[str, Any]:
    """Each phase's share of answered and refused calls with latencies, and the recovery.

    A phase's calls are those that were to be sent in it. The limit of the recovery is `slack` times
    the median of the p99s of half a second each before the overload.
    """
    start_s = min(calls.start_s)
    sent_s = np.asarray(calls.start_s) - start_s
    found, series = {}, {}
    for begin_s, phase in zip(starts(phases), phases, strict=True):
        inside = (sent_s >= begin_s) & (sent_s < begin_s + phase.seconds)
        found[phase.name] = phase_dict(calls.where(inside), phase)
        series[phase.name] = bins(calls, start_s + begin_s, phase.seconds, _BIN_S)
    before = [one.p99_ms for one in series[BEFORE] if one.p99_ms is not None]
    limit_ms = slack * float(np.median(before)) if before else 0.0
    return {
        "phases": found,
        "recovery": {
            "limit_p99_ms": round(limit_ms, 3),
            "seconds": recovery_s(series[AFTER], _BIN_S, limit_ms),
            "late_answers_s": _last_answer(calls, start_s + starts(phases)[-1]),
        },
        "series": {name: [one._asdict() for one in rows] for name, rows in series.items()},
        "errors": calls.examples,
    }


def phase_dict(calls: Calls, phase: Phase) -> dict[str, Any]:
    """One phase's figures; refusal times count from the intended and from the real sending."""
    answered, refused = calls.answered(), calls.refused()
    since_sent = np.subtract(refused.latency_ms, refused.late_ms).tolist()
    return {
        "rate_per_s": round(phase.rate, 1),
        "seconds": phase.seconds,
        "sent": len(calls),
        "statuses": calls.statuses(),
        "share_answered": round(len(answered) / len(calls), 4) if len(calls) else None,
        "answered": percentiles(answered.latency_ms),
        "refused": percentiles(refused.latency_ms),
        "refused_by_reason": {
            reason: percentiles(refused.where([one == reason for one in refused.status]).latency_ms)
            for reason in refused.statuses()
        },
        "refused_since_sent": percentiles(since_sent),
        "lateness": percentiles(calls.late_ms),
    }


def measured(result: Mapping[str, Any]) -> list[Measured]:
    """Each phase's figures, of one round, for the result file."""
    rows = []
    for name, phase in result["phases"].items():
        values = {key: phase["answered"][key] for key in ("p50_ms", "p99_ms")}
        metrics = {
            key: Metric.of([value], "ms", "lower")
            for key, value in values.items()
            if value is not None
        }
        if phase["share_answered"] is not None:
            metrics["answered_share"] = Metric.of([phase["share_answered"]], "", "higher")
        rows.append(Measured("server", {"phase": name}, metrics))
    return rows


def _last_answer(calls: Calls, end_s: float) -> float:
    """How long after the overload's end a call of it was still answered, in seconds."""
    ends_s = np.asarray(calls.start_s) + np.asarray(calls.latency_ms) / 1e3
    during = ends_s[np.asarray(calls.start_s) < end_s]
    return round(max(0.0, float(during.max()) - end_s), 3) if len(during) else 0.0


def memory(samples: Sequence[Sample], start_s: float) -> dict[str, Any]:
    """The server's memory over the run, all its processes together, in MiB."""
    totals = [sample.total_mib for sample in samples]
    return {
        "first_mib": round(totals[0], 1),
        "largest_mib": round(max(totals), 1),
        "last_mib": round(totals[-1], 1),
        "series": [
            [round(sample.at_s - start_s, 2), round(sample.total_mib, 1)] for sample in samples
        ],
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """The phases, and what else was asked."""
    rows = [
        (
            name, one["rate_per_s"], one["sent"], f"{one['share_answered'] or 0:.1%}",
            one["answered"]["p50_ms"], one["answered"]["p99_ms"], one["refused"]["p99_ms"],
            one["refused_since_sent"]["p99_ms"], one["lateness"]["p99_ms"],
        )
        for name, one in result["phases"].items()
    ]  # fmt: skip
    columns = ("phase", "rate/s", "sent", "answered", "p50 ms", "p99 ms", "refused p99",
        "since sent", "generator late p99")  # fmt: skip
    recovery, used = result["recovery"], result["memory"]
    seconds = recovery["seconds"]
    facts = [
        ("capacity, requests/s", result["capacity_per_s"]),
        ("unloaded p50 and p99, ms", "{p50_ms:.2f}, {p99_ms:.2f}".format(**result["unloaded"])),
        ("recovered after, s", "not within the run" if seconds is None else seconds),
        ("memory first, largest, last, MiB",
            "{first_mib}, {largest_mib}, {last_mib}".format(**used)),
        ("generator's own CPU, cores", result["client_cpu_cores"]),
    ]  # fmt: skip
    reasons = [
        (escape(f"{name}: {reason}"), found["count"], found["p50_ms"], found["p99_ms"])
        for name, one in result["phases"].items()
        for reason, found in one["refused_by_reason"].items()
    ]
    return [
        make_table("Open loop, latencies from the intended time", columns, rows),
        make_table("Refusals", ("phase and reason", "count", "p50 ms", "p99 ms"), reasons),
        make_table("Beside it", ("what", "value"), facts),
    ]


def brief(result: dict[str, Any]) -> dict[str, Any]:
    """The line for programs."""
    during = result["phases"][OVERLOAD]
    return {
        "capacity_per_s": result["capacity_per_s"],
        "share_answered": during["share_answered"],
        "answered_p99_ms": during["answered"]["p99_ms"],
        "refused_p99_ms": during["refused"]["p99_ms"],
        "generator_late_p99_ms": during["lateness"]["p99_ms"],
        "recovery_s": result["recovery"]["seconds"],
    }
