"""Requests a second, latency and CPU: our server's variants and other servers, interleaved.

    python -m multitask_benchmarks serving throughput --repository fp32=repo-fp32 \\
        --repository int8=repo-int8 --checkpoint runs/snips --data test.jsonl \\
        --peer fastapi --peer litserve:bf16 --peer litserve:bf16:2x1

A closed loop of 1, 8, 32 … callers, one text a request, from one process on the same machine. All
servers are up during the whole run and are measured in turn; one that uses CPU while nobody asks is
stopped (SIGSTOP) in the others' turns. Every answer is compared with the checkpoint's own before
the clock starts. The first server that runs, peers before ours, is what the others are compared
with.

`python -m multitask_benchmarks peers install` makes the peers' environments; one that cannot run is
listed with the reason. --url measures a Triton that runs already, in a container or on a GPU, whose
CPU and memory are then not watched.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import interval, make_table, results_table
from multitask_benchmarks.rounds import Cell, Result, measure_rounds, summarise
from multitask_benchmarks.serving.servers import (
    Server,
    add_server_arguments,
    choose_servers,
    start_all,
)
from multitask_benchmarks.stats import Estimate, estimate
from multitask_benchmarks.texts import read_texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving throughput`."""
    add = parser.add_argument
    add_server_arguments(parser, required=True)
    add("--sizes", type=int, nargs="+", default=[1, 8, 32, 64], metavar="N",
        help="concurrent callers (default: 1 8 32 64)")  # fmt: skip
    add("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    add("--seconds", type=float, default=3.0,
        help="each server at each size in each round (default: %(default)s)")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "sizes", "rounds", "seconds", "texts")
    chosen = choose_servers(options)
    texts = read_texts(options.data, options.texts)
    lenient = options.allow_different
    with start_all(chosen, texts, options.checkpoint, allow_different=lenient) as line_up:
        results = measure(line_up.servers, texts, options.sizes, options.rounds, options.seconds)
    baseline = line_up.baseline
    record = make_record(
        options,
        baseline=baseline,
        measurements=[one.cell.measured("callers") for one in results],
        details=line_up.to_dict(),
    )
    tables = [results_table(results, baseline), cpu_table(results), *line_up.tables()]
    return finish(options, record, tables, brief(results))


def measure(
    servers: Sequence[Server],
    texts: Sequence[str],
    sizes: Sequence[int],
    rounds: int,
    seconds: float,
) -> list[Result]:
    """All rounds, with the estimates against the first server."""
    with tqdm(total=rounds * len(servers) * len(sizes), desc="throughput", leave=False) as bar:
        cells = measure_rounds(
            servers, texts, sizes, rounds=rounds, seconds=seconds, advance=lambda: bar.update()
        )
    return summarise(cells, servers[0].name)


def cpu_table(results: Sequence[Result]) -> Table:
    """CPU time a request, server and client apart."""
    rows = [
        (
            one.cell.subject,
            one.cell.size,
            *(interval(cpu) if cpu else None for cpu in _cpu(one.cell)),
        )
        for one in results
    ]
    columns = ("subject", "callers", "server ms", "client ms")
    caption = "user and system time of all processes; the client shares the machine's cores"
    return make_table("CPU milliseconds a request", columns, rows, caption)


def brief(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The line for programs: medians."""
    return [
        {
            "subject": one.cell.subject,
            "callers": one.cell.size,
            "requests_per_s": round(one.texts_per_s.median, 1),
            "p50_ms": round(one.p50_ms.median, 3),
            "p99_ms": round(one.p99_ms.median, 3) if one.p99_ms else None,
            "server_cpu_ms": _rounded(_cpu(one.cell)[0]),
            "client_cpu_ms": _rounded(_cpu(one.cell)[1]),
            "speedup": round(one.speedup.median, 2) if one.speedup else None,
        }
        for one in results
    ]


def _cpu(cell: Cell) -> list[Estimate | None]:
    """Of server and client; None for a server that is not this run's."""
    return [estimate(one) if one else None for one in (cell.server_cpu_ms, cell.client_cpu_ms)]


def _rounded(value: Estimate | None) -> float | None:
    return round(value.median, 4) if value else None
