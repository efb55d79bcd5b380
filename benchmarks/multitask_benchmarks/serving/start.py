"""Cold start: from the command to ready, to the first answer, and what the first answer costs.

    python -m multitask_benchmarks serving start --repository triton_models \\
        --checkpoint runs/demo --data data/demo/test.jsonl --peer litserve

Every round starts and stops each server once, alone. `ready_s` ends when the server itself says
that its models are ready, `first_answer_s` when the first text is answered; `first_ms` is that
call's latency, `warm_ms` the median of calls after it, one caller, of which Triton counts
`queue_ms` and `compute_ms`. Answers are compared with the checkpoint's at the end of a server's
first round. With --evict the kernel is asked to forget the model's files before
each start, as on a machine that has just fetched them; libraries stay in its page cache.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import make_table
from multitask_benchmarks.rounds import interleaved
from multitask_benchmarks.serving.closed import once, run_closed
from multitask_benchmarks.serving.figures import Figures, triton_view
from multitask_benchmarks.serving.meter import Meter
from multitask_benchmarks.serving.peers import serve_peer
from multitask_benchmarks.serving.processes import cpu_s, pss_mib, tree
from multitask_benchmarks.serving.served import Served, serve_triton
from multitask_benchmarks.serving.servers import (
    LineUp,
    Server,
    add_server_arguments,
    check,
    choose_servers,
)
from multitask_benchmarks.subjects import open_checkpoint
from multitask_benchmarks.texts import read_texts
from multitask_core.errors import ClientError, ServeError
from multitask_core.prediction import Prediction

_SHOWN = {
    "ready_s": "ready s", "first_answer_s": "first answer s", "first_ms": "first ms",
    "warm_ms": "warm ms", "start_cpu_s": "CPU s", "ready_pss_mib": "ready MiB",
    "server_pss_mib": "then MiB", "stop_s": "stop s",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving start`."""
    add = parser.add_argument
    add_server_arguments(parser, required=False)
    add("--rounds", type=int, default=5, help="starts of each server (default: %(default)s)")
    add("--warm-calls", type=int, default=100, help="after the first (default: %(default)s)")
    add("--evict", action="store_true", help="start with the model's files out of memory")


@dataclass
class Starter:
    """start: a server from its start to its end. files: what it reads its model from.

    optional: whether the others are measured without it where it cannot be started. facts: what
    was started, JSON-ready. agreement: of its answers, once they have been compared.
    """

    start: Callable[[], AbstractContextManager[Served]]
    files: Path
    figures: Figures
    optional: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(
        self,
        texts: Sequence[str],
        warm_calls: int,
        *,
        evict: bool,
        reference: Sequence[Prediction] | None = None,
        allow_different: bool = False,
    ) -> None:
        """One start, one stop; raises ServeError and ClientError.

        reference: what the texts' answers are compared with, once; ParityError where ours differ.
        """
        if evict:
            forget(self.files)
        with self.start() as served:
            self.facts = served.facts
            memory = _memory(served.pid, "ready")
            start_cpu_s = cpu_s(served.pid)
            endpoint = served.endpoint(texts)
            asked_s = time.perf_counter()
            first = run_closed(endpoint, once(1), 1).stats()
            first_s = served.ready_s + time.perf_counter() - asked_s
            picks = (number % len(texts) for number in range(1, warm_calls + 1))
            with Meter(served) as meter:
                calls = run_closed(endpoint, picks, 1)
            calls.stats()
            warm_ms = float(np.median(calls.latency_ms[len(calls) // 2 :]))
            memory |= _memory(served.pid, "server")
            if reference is not None and not self.agreement:
                server = Server(served, texts)
                self.agreement = check([server], texts, reference, allow_different=allow_different)
            end_s = time.perf_counter()
        self.figures.add(
            {
                "ready_s": served.ready_s,
                "first_answer_s": first_s,
                "first_ms": first.p50_ms,
                "warm_ms": warm_ms,
                "first_to_warm": first.p50_ms / warm_ms,
                "stop_s": time.perf_counter() - end_s,
                "start_cpu_s": start_cpu_s,
                **triton_view(meter.spent),
                **memory,
            }
        )


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "rounds", "warm_calls", "texts")
    chosen = choose_servers(options)
    texts = read_texts(options.data, options.texts)
    starters = [
        Starter(partial(serve_triton, name, folder), folder, Figures(name, {}))
        for name, folder in chosen.repositories
    ]
    starters += [
        Starter(
            partial(serve_peer, peer, options.checkpoint),
            options.checkpoint,
            Figures(peer.title, {}),
            optional=True,
        )
        for peer in chosen.peers
    ]
    reference = open_checkpoint(options.checkpoint).predict(texts) if options.checkpoint else None
    not_run = measure(starters, texts, options, reference)
    agreement = {name: one for starter in starters for name, one in starter.agreement.items()}
    line_up = LineUp(not_run=not_run, agreement=agreement)
    found = [one.figures for one in starters if one.figures.subject not in not_run]
    record = make_record(
        options,
        baseline=found[0].subject if len(found) > 1 else "",
        measurements=[one.measured() for one in found],
        details={
            "subjects": {one.figures.subject: one.facts for one in starters if one.facts},
            "not_run": not_run,
            "agreement": line_up.agreement,
        },
    )
    return finish(options, record, [table(found), *line_up.tables()], brief(found))


def measure(
    starters: Sequence[Starter],
    texts: Sequence[str],
    options: argparse.Namespace,
    reference: Sequence[Prediction] | None = None,
) -> dict[str, str]:
    """All rounds; returns which peers do not start or answer, and why; ours raises what it was."""
    not_run: dict[str, str] = {}
    with tqdm(total=options.rounds * len(starters), desc="start", leave=False) as bar:
        for one in interleaved(starters, options.rounds):
            if one.figures.subject not in not_run:
                try:
                    one.run(
                        texts,
                        options.warm_calls,
                        evict=options.evict,
                        reference=reference,
                        allow_different=options.allow_different,
                    )
                except (ServeError, ClientError) as error:
                    if not one.optional:
                        raise
                    not_run[one.figures.subject] = str(error)
            bar.update()
    return not_run


def forget(folder: Path) -> None:
    """Ask the kernel to drop a folder's files from its page cache (posix_fadvise(2))."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # pages that wait to be written stay
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _memory(pid: int, name: str) -> dict[str, float]:
    resident = sum(process.memory_mib for process in tree(pid))
    return {f"{name}_rss_mib": resident, f"{name}_pss_mib": pss_mib(pid)}


def table(found: Sequence[Figures]) -> Table:
    """A row for each server."""
    rows = [(one.subject, *(one.median(name) for name in _SHOWN)) for one in found]
    caption = (
        "CPU: until ready; MiB: shared pages counted once, when ready and after the warm calls"
    )
    columns = ("server", *_SHOWN.values())
    return make_table("Starting: medians over rounds", columns, rows, caption)


def brief(found: Sequence[Figures]) -> list[dict[str, Any]]:
    """The line for programs: medians."""
    names = ("ready_s", "first_answer_s", "first_ms", "warm_ms")
    return [{"subject": one.subject, **{name: one.median(name) for name in names}} for one in found]
