"""Latency by rate: an open loop, Poisson arrivals that do not wait for answers.

    python -m multitask_benchmarks serving rates --repository triton_models \\
        --data data/demo/test.jsonl --rates 50 100 200 300

A closed loop asks less of a server that stalls; here requests come at their times, from processes
of their own, and a latency counts from the time at which its request was to be sent (no coordinated
omission). Without --rates they are shares of what 64 callers get out of the first of our servers;
such a point is named by its share, so that two runs can be compared.
Beside the client's latencies stand Triton's own means of queue and compute, CPU, memory and how
late the generator was: where `late_p99_ms` is not small against the latencies, they say more of the
generator than of the server.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import count
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import make_table
from multitask_benchmarks.reporting.points import title
from multitask_benchmarks.results import Point
from multitask_benchmarks.rounds import interleaved
from multitask_benchmarks.serving.closed import capacity
from multitask_benchmarks.serving.figures import Figures
from multitask_benchmarks.serving.opened import Generators
from multitask_benchmarks.serving.servers import (
    Server,
    add_server_arguments,
    choose_servers,
    start_all,
)
from multitask_benchmarks.serving.steady import hold
from multitask_benchmarks.texts import read_texts

# Heads are the file's names, shortened: all of them do not fit on a screen.
_SHOWN = {
    "sent_per_s": "sent/s", "p50_ms": "p50 ms", "p95_ms": "p95 ms", "p99_ms": "p99 ms",
    "answered_share": "answered", "queue_ms": "queue ms", "compute_ms": "compute ms",
    "server_cpu_ms_a_text": "CPU ms", "late_p99_ms": "late p99 ms",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving rates`."""
    add = parser.add_argument
    add_server_arguments(parser, required=False)
    add("--rates", type=float, nargs="+", default=[], metavar="N",
        help="requests/s (default: shares of the capacity)")  # fmt: skip
    add("--shares", type=float, nargs="+", default=[0.2, 0.4, 0.6, 0.8, 0.9], metavar="X",
        help="of the capacity, where no rates are given [0.2 0.4 0.6 0.8 0.9]")  # fmt: skip
    add("--callers", type=int, default=64, help="that measure the capacity [%(default)s]")
    add("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    add("--seconds", type=float, default=5.0,
        help="each server at each rate in each round, after settling [%(default)s]")  # fmt: skip
    add("--generators", type=int, default=1, help="processes that send (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "shares", "callers", "rounds", "seconds", "generators", "texts")
    if options.rates:
        require_positive(options, "rates")
    chosen = choose_servers(options)
    texts = read_texts(options.data, options.texts)
    lenient = options.allow_different
    with (
        start_all(chosen, texts, options.checkpoint, allow_different=lenient) as line_up,
        Generators(options.generators) as generators,
    ):
        rates = points(line_up.ours, options)
        found = measure(line_up.servers, generators, rates, options)
    record = make_record(
        options,
        baseline=line_up.baseline if len(line_up.servers) > 1 else "",
        measurements=[one.measured() for one in found],
        details={**line_up.to_dict(), "rates": [rate for rate, _ in rates]},
    )
    return finish(options, record, [table(found), *line_up.tables()], brief(found))


def points(server: Server, options: argparse.Namespace) -> list[tuple[float, Point]]:
    """Rates in requests/s, each with what names it: itself, or its share of the capacity.

    The capacity is what a closed loop reaches; its shares are taken to two figures.
    """
    if options.rates:
        return [(rate, {"rate_per_s": rate}) for rate in options.rates]
    with server.awake():
        most = capacity(server.endpoint, options.callers).texts_per_s
    return [(float(f"{share * most:.2g}"), {"load": share}) for share in options.shares]


def measure(
    servers: Sequence[Server],
    generators: Generators,
    rates: Sequence[tuple[float, Point]],
    options: argparse.Namespace,
) -> list[Figures]:
    """All rounds of every server at every rate; each has arrivals of its own."""
    pairs = [
        (server, rate, Figures(server.name, point)) for rate, point in rates for server in servers
    ]
    seeds = count(options.seed)
    with tqdm(total=options.rounds * len(pairs), desc="rates", leave=False) as bar:
        for server, rate, figures in interleaved(pairs, options.rounds):
            figures.add(hold(server, generators, rate, options.seconds, next(seeds))[1])
            bar.update()
    return [figures for _, _, figures in pairs]


def table(found: Sequence[Figures]) -> Table:
    """Medians, a row for each server and rate."""
    rows = [
        (one.subject, title(one.point), *(one.median(name) for name in _SHOWN)) for one in found
    ]
    caption = (
        "latencies from the intended time; queue, compute: Triton's means a text; CPU: the "
        "server's a text; late: the generator itself. The result file has more"
    )
    columns = ("server", "at", *_SHOWN.values())
    return make_table("Open loop: medians over rounds", columns, rows, caption)


def brief(found: Sequence[Figures]) -> list[dict[str, Any]]:
    """The line for programs: medians."""
    names = ("sent_per_s", "p50_ms", "p99_ms", "answers_per_s", "queue_ms", "compute_ms",
        "late_p50_ms", "late_p99_ms")  # fmt: skip
    return [
        {"subject": one.subject, **one.point, **{name: one.median(name) for name in names}}
        for one in found
    ]
