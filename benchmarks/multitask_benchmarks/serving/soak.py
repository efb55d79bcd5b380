"""Half load for long: does memory grow, does latency decay, does anything fail?

    python -m multitask_benchmarks serving soak --repository triton_models \\
        --artifact artifacts/demo --data data/demo/test.jsonl --minutes 30

An open loop at half the measured capacity, Poisson arrivals. Memory of every server process is
sampled every 10 s; its slope leaves out the first minutes, in which caches fill. The result file is
written anew after each minute, so that an interrupted soak still leaves one. A finished one of the
same name stays until this one has finished; Ctrl-C writes what there is as "NAME interrupted".
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import (
    finish,
    make_record,
    model_name,
    require_positive,
    scenario_name,
)
from multitask_benchmarks.report import make_table
from multitask_benchmarks.results import (
    Measured,
    Metric,
    ScenarioRecord,
    read_results,
    result_path,
    write_scenario,
)
from multitask_benchmarks.serving.alone import serve_alone
from multitask_benchmarks.serving.arrivals import Phase
from multitask_benchmarks.serving.calls import ANSWERED, Calls, percentiles
from multitask_benchmarks.serving.closed import capacity
from multitask_benchmarks.serving.opened import Generators
from multitask_benchmarks.serving.processes import Sample, Watch
from multitask_benchmarks.serving.served import Served, parse_repository
from multitask_benchmarks.serving.servers import add_check_arguments
from multitask_benchmarks.serving.trends import slope
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_benchmarks.texts import read_texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving soak`."""
    add = parser.add_argument
    add_check_arguments(parser)
    add("--artifact", type=Path, help="names the model in the result file")
    add("--minutes", type=float, default=30.0, help="of load (default: %(default)s)")
    add("--load", type=float, default=0.5, help="share of the capacity (default: %(default)s)")
    add("--rate", type=float, default=0.0, help="requests/s; 0 measures the capacity (default)")
    add("--settle-minutes", type=float, default=5.0,
        help="left out of the slopes (default: %(default)s)")  # fmt: skip
    add("--sample-seconds", type=float, default=10.0, help="between samples [%(default)s]")
    add("--window-seconds", type=float, default=60.0,
        help="of one entry of the latency series, and between writes [%(default)s]")  # fmt: skip
    add("--callers", type=int, default=64, help="that measure the capacity [%(default)s]")
    add("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status, 130 where Ctrl-C ended it early."""
    require_positive(
        options, "minutes", "load", "sample_seconds", "window_seconds", "callers", "texts"
    )
    name, repository = parse_repository(options.repository)
    texts = read_texts(options.data, options.texts)
    with (
        serve_alone(name, repository, texts, options) as (served, about),
        Generators(1) as generators,
    ):
        soak = Soak(served, options, about)
        try:
            soak.run(generators, texts)
        except KeyboardInterrupt:
            write_unfinished(options, soak.record(finished=False), " interrupted")
            raise
    record = soak.record(finished=True)
    return finish(options, record, tables(record.details), brief(record.details, options.minutes))


def write_unfinished(options: argparse.Namespace, record: ScenarioRecord, other: str = "") -> None:
    """Write what there is, but never over a finished soak.

    other: where there is one, what is put to the name; "" then writes nothing.
    """
    name, model = scenario_name(options), model_name(options)
    path = result_path(options.output, model, record)
    there = read_results(path).scenarios.get(name) if path.exists() else None
    if there is None or there.details.get("finished") is False:
        write_scenario(options.output, model, name, record)
    elif other:
        write_scenario(options.output, model, name + other, record)


class Soak:
    """The run and what it has found so far; about: the server's part of the details."""

    def __init__(
        self, served: Served, options: argparse.Namespace, about: Mapping[str, Any]
    ) -> None:
        self._served, self._options, self._about = served, options, about
        self.rate = options.rate
        self.windows: list[dict[str, Any]] = []
        self.examples: dict[str, str] = {}
        self.watch = Watch(served.pid, options.sample_seconds)

    def run(self, generators: Generators, texts: Sequence[str]) -> None:
        """Load in windows, one after the other, until the time is up."""
        options = self._options
        endpoint = GrpcEndpoint(self._served.url, texts, channels=2)
        if not self.rate:
            self.rate = options.load * capacity(endpoint, options.callers).texts_per_s
        total_s = 60 * options.minutes
        with self.watch, tqdm(total=round(total_s), desc="soak", unit="s", leave=False) as bar:
            for number in count():
                left_s = total_s - number * options.window_seconds
                if left_s <= 0:
                    break
                phase = Phase("soak", self.rate, min(options.window_seconds, left_s))
                calls = generators.run(endpoint, [phase], options.seed + number)
                self.add(calls)
                write_unfinished(options, self.record(finished=False))
                bar.update(round(phase.seconds))

    def add(self, calls: Calls) -> None:
        """Append one window's figures."""
        self.examples.update(calls.examples)
        self.windows.append(
            {
                "at_s": round(min(calls.start_s) - self.watch.samples[0].at_s, 1),
                "sent": len(calls),
                "statuses": calls.statuses(),
                "answered": percentiles(calls.answered().latency_ms),
                "lateness": percentiles(calls.late_ms),
                "client_cpu_s": round(calls.client_cpu_s, 3),
            }
        )

    def record(self, *, finished: bool) -> ScenarioRecord:
        """The scenario as of now; what the windows took after settling are its rounds."""
        options = self._options
        settled = self._settled()
        values = {name: [one["answered"][name] for one in settled] for name in ("p50_ms", "p99_ms")}
        metrics = {
            name: Metric.of(known, "ms", "lower")
            for name, found in values.items()
            if (known := [value for value in found if value is not None])
        }
        shares = [_answered(one) / one["sent"] for one in settled if one["sent"]]
        if shares:
            metrics["answered_share"] = Metric.of(shares, "", "higher")
        point = {"rate_per_s": options.rate} if options.rate else {"load": options.load}
        measurements = [Measured("server", point, metrics)] if metrics else []
        details = self.details(finished=finished)
        return make_record(options, measurements=measurements, details=details)

    def details(self, *, finished: bool) -> dict[str, Any]:
        """What has been found so far."""
        settle_s = 60 * self._options.settle_minutes
        settled = self._settled()
        sent = sum(one["sent"] for one in self.windows)
        return {
            **self._about,
            "finished": finished,
            "rate_per_s": round(self.rate, 1),
            "sent": sent,
            "failed": sent - sum(map(_answered, self.windows)),
            "errors": self.examples,
            "memory": memory(self.watch.samples, settle_s),
            "p99_ms_an_hour": _trend(settled, "p99_ms"),
            "p50_ms_an_hour": _trend(settled, "p50_ms"),
            "windows": self.windows,
        }

    def _settled(self) -> list[dict[str, Any]]:
        """Windows after the first minutes."""
        settle_s = 60 * self._options.settle_minutes
        return [one for one in self.windows if one["at_s"] >= settle_s]


def _answered(window: Mapping[str, Any]) -> int:
    return int(window["statuses"].get(ANSWERED, 0))


def _trend(windows: Sequence[dict[str, Any]], name: str) -> dict[str, float | None]:
    rows = [(one["at_s"], one["answered"][name]) for one in windows]
    known = [(at_s, value) for at_s, value in rows if value is not None]
    return slope([at_s for at_s, _ in known], [value for _, value in known])._asdict()


def memory(samples: Sequence[Sample], settle_s: float) -> dict[str, Any]:
    """Samples of every process and the slope of each after `settle_s`, in MiB an hour."""
    start_s = samples[0].at_s if samples else 0.0
    settled = [one for one in samples if one.at_s - start_s >= settle_s]
    at_s = [one.at_s for one in settled]
    names = list(dict.fromkeys(name for one in samples for name in one.memory_mib))
    slopes = {
        name: slope(at_s, [one.memory_mib.get(name, 0.0) for one in settled])._asdict()
        for name in names
    }
    total = slope(at_s, [one.total_mib for one in settled])
    return {
        "slope_mib_an_hour": {"all": {**total._asdict(), "grows": total.grows}, **slopes},
        "samples": [
            {"at_s": round(one.at_s - start_s, 1), "cpu_s": round(one.cpu_s, 2), **one.memory_mib}
            for one in samples
        ],
    }


def tables(details: dict[str, Any]) -> list[Table]:
    """Slopes, and the first and last windows' latencies."""
    slopes = [
        (name, one["per_hour"], one["low"], one["high"])
        for name, one in details["memory"]["slope_mib_an_hour"].items()
    ]
    windows = details["windows"]
    shown = [*windows[:2], *windows[max(2, len(windows) - 3) :]]
    rows = [
        (
            f"{one['at_s']:.0f}", one["sent"], one["answered"]["p50_ms"],
            one["answered"]["p99_ms"], one["lateness"]["p99_ms"],
        )
        for one in shown
    ]  # fmt: skip
    facts = [
        (name, details[key])
        for name, key in (("requests/s", "rate_per_s"), ("sent", "sent"), ("failed", "failed"))
    ]
    return [
        make_table("Memory, MiB an hour", ("process", "slope", "low", "high"), slopes),
        make_table("Latency", ("at, s", "sent", "p50 ms", "p99 ms", "generator late p99"), rows),
        make_table("Load", ("what", "value"), facts),
    ]


def brief(details: dict[str, Any], minutes: float) -> dict[str, Any]:
    """The line for programs."""
    return {
        "minutes": minutes,
        "sent": details["sent"],
        "failed": details["failed"],
        "memory_mib_an_hour": details["memory"]["slope_mib_an_hour"]["all"],
        "p99_ms_an_hour": details["p99_ms_an_hour"],
    }
