"""Requests a second, latency and CPU: our server's variants and other servers, interleaved.

    python -m multitask_benchmarks serving throughput --repository fp32=repo-fp32 \\
        --repository int8=repo-int8 --checkpoint runs/snips --data test.jsonl \\
        --peer fastapi=venvs/fastapi/bin/python --peer litserve:bf16=venvs/litserve/bin/python

A closed loop of 1, 8, 32 … callers, one text a request, from one process on the same machine. All
servers are up during the whole run and are measured in turn; one that uses CPU while nobody asks is
stopped (SIGSTOP) in the others' turns. Every answer is compared with the checkpoint's own before
the clock starts. The first --peer, or else the first --repository, is what
the others are compared with.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.agreement import compare, require
from multitask_benchmarks.load import Measurement
from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import agreement_table, interval, make_table, results_table
from multitask_benchmarks.rounds import Cell, Result, measure_rounds, summarise
from multitask_benchmarks.serving.closed import for_seconds, once, run_closed
from multitask_benchmarks.serving.endpoint import Endpoint
from multitask_benchmarks.serving.peers import parse_peer, serve_peer
from multitask_benchmarks.serving.processes import cpu_s, pause, resume
from multitask_benchmarks.serving.served import Served, parse_repository, serve_triton
from multitask_benchmarks.serving.web import HttpEndpoint
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_benchmarks.stats import Estimate, estimate
from multitask_benchmarks.subjects import open_checkpoint
from multitask_benchmarks.texts import read_texts
from multitask_client import Client
from multitask_client.answers import Statistics
from multitask_core.errors import ConfigError
from multitask_core.prediction import Prediction

CHECK_CONCURRENCY = 32
IDLE_S = 2.0
# Cores that an idle server may use before it has to pause for the others.
IDLE_CORES = 0.03


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving throughput`."""
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="peers load it; answers must equal its")
    add("--peer", action="append", default=[], metavar="NAME[:PRECISION]=PYTHON",
        help="another server, run by its own environment's interpreter; repeatable")  # fmt: skip
    add("--sizes", type=int, nargs="+", default=[1, 8, 32, 64], metavar="N",
        help="concurrent callers (default: 1 8 32 64)")  # fmt: skip
    add("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    add("--seconds", type=float, default=3.0,
        help="each server at each size in each round (default: %(default)s)")  # fmt: skip
    add("--allow-different", action="store_true",
        help="report different answers instead of refusing")  # fmt: skip


class Subject:
    """One server; `measure` is what `rounds.measure_rounds` calls.

    idle_cpu: cores that it uses while nobody asks.
    """

    def __init__(self, served: Served, texts: Sequence[str]) -> None:
        self.name, self.served = served.name, served
        self.triton = served.facts.get("kind") == "triton"
        kind = GrpcEndpoint if self.triton else HttpEndpoint
        self.endpoint: Endpoint = kind(served.url, texts)
        self.idle_cpu = 0.0

    def predict(self) -> list[Prediction]:
        """Every text's answer, many callers at once; raises ClientError for one without."""
        texts = self.endpoint.texts
        calls = run_closed(self.endpoint, once(len(texts)), CHECK_CONCURRENCY, keep=True)
        calls.stats()
        found = dict(zip(calls.index, calls.replies, strict=True))
        return [self.endpoint.read(found[index]).prediction for index in range(len(texts))]

    def measure(self, texts: Sequence[str], size: int, seconds: float) -> Measurement:
        """`size` callers for so long; a failure is an error, since no figure could stand then."""
        if not self.restless:
            return self._measure(texts, size, seconds)
        resume(self.served.pid)
        try:
            return self._measure(texts, size, seconds)
        finally:
            pause(self.served.pid)

    def _measure(self, texts: Sequence[str], size: int, seconds: float) -> Measurement:
        before_cpu_s, before = cpu_s(self.served.pid), self._statistics()
        picks = for_seconds(len(texts), seconds)
        calls = run_closed(self.endpoint, picks, size)
        calls.stats()
        after, after_cpu_s = self._statistics(), cpu_s(self.served.pid)
        server = after - before if after and before else None
        return Measurement(
            calls.latency_ms, len(calls), calls.seconds, server,
            server_cpu_s=after_cpu_s - before_cpu_s, client_cpu_s=calls.client_cpu_s,
        )  # fmt: skip

    @property
    def restless(self) -> bool:
        """Whether it disturbs the others while it is idle."""
        return self.idle_cpu > IDLE_CORES

    def watch_idle(self) -> None:
        """Note what the server costs while nobody asks: it runs beside the others' turns."""
        before_cpu_s = cpu_s(self.served.pid)
        time.sleep(IDLE_S)
        self.idle_cpu = (cpu_s(self.served.pid) - before_cpu_s) / IDLE_S

    def _statistics(self) -> Statistics | None:
        if not self.triton:
            return None
        with Client(self.served.url) as client:
            return client.statistics()


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "sizes", "rounds", "seconds", "texts")
    repositories = [parse_repository(value) for value in options.repository]
    peers = [parse_peer(value) for value in options.peer]
    names = [*(peer.title for peer in peers), *(name for name, _ in repositories)]
    if len(set(names)) < len(names):
        raise ConfigError(f"servers need different names, got {names}: write NAME=DIR")
    texts = read_texts(options.data, options.texts)
    with ExitStack() as stack:
        served = [stack.enter_context(serve_peer(peer, options.checkpoint)) for peer in peers]
        served += [stack.enter_context(serve_triton(*one)) for one in repositories]
        subjects = [Subject(one, texts) for one in served]
        reference = open_checkpoint(options.checkpoint).predict(texts)
        agreement = check(subjects, texts, reference, allow_different=options.allow_different)
        results = measure(subjects, texts, options.sizes, options.rounds, options.seconds)
    details = {
        "subjects": {
            one.name: {
                **one.served.facts,
                "idle_cpu_cores": round(one.idle_cpu, 3),
                "paused": one.restless,
            }
            for one in subjects
        },
        "agreement": agreement,
    }
    baseline = subjects[0].name
    record = make_record(
        options,
        baseline=baseline,
        measurements=[one.cell.measured("callers") for one in results],
        details=details,
    )
    tables = [
        results_table(results, baseline),
        cpu_table(results),
        agreement_table(agreement, "checkpoint"),
    ]
    return finish(options, record, tables, brief(results))


def check(
    subjects: Sequence[Subject],
    texts: Sequence[str],
    reference: Sequence[Prediction],
    *,
    allow_different: bool,
) -> dict[str, dict[str, Any]]:
    """Compare every server's answers with the checkpoint's.

    One of ours that differs raises ParityError, unless that is allowed. A peer's differences are
    counted: it tokenises and groups words in its own way.
    """
    counts: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        agreement = compare(texts, subject.predict(), reference)
        lenient = allow_different or not subject.triton
        require(agreement, subject.name, "checkpoint", allow_different=lenient)
        counts[subject.name] = {**agreement.to_dict(), "examples": agreement.examples}
    return counts


def measure(
    subjects: Sequence[Subject],
    texts: Sequence[str],
    sizes: Sequence[int],
    rounds: int,
    seconds: float,
) -> list[Result]:
    """All rounds, with the estimates against the first subject."""
    for subject in subjects:
        subject.watch_idle()
    restless = [subject.served.pid for subject in subjects if subject.restless]
    try:
        for pid in restless:
            pause(pid)
        with tqdm(total=rounds * len(subjects) * len(sizes), desc="throughput", leave=False) as bar:
            cells = measure_rounds(
                subjects, texts, sizes, rounds=rounds, seconds=seconds, advance=lambda: bar.update()
            )
    finally:  # a stopped process cannot end in good order
        for pid in restless:
            resume(pid)
    return summarise(cells, subjects[0].name)


def cpu_table(results: Sequence[Result]) -> Table:
    """CPU time a request, server and client apart."""
    rows = [(one.cell.subject, one.cell.size, *map(interval, _cpu(one.cell))) for one in results]
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
            "p99_ms": round(one.p99_ms.median, 3),
            "server_cpu_ms": round(_cpu(one.cell)[0].median, 4),
            "client_cpu_ms": round(_cpu(one.cell)[1].median, 4),
            "speedup": round(one.speedup.median, 2) if one.speedup else None,
        }
        for one in results
    ]


def _cpu(cell: Cell) -> tuple[Estimate, Estimate]:
    return estimate(cell.server_cpu_ms), estimate(cell.client_cpu_ms)
