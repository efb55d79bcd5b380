"""The highest rate at which 99 % of all requests are answered in time.

    python -m multitask_benchmarks serving max-rate --repository triton_models \\
        --data data/demo/test.jsonl --p99-ms 50

Every round searches anew: Poisson arrivals at one rate after the other, bisected until the highest
good and the lowest bad rate are within --tolerance; then the found rate is held for longer, and
lowered until it holds there too. A request that is refused or fails is not in time, and latency
counts from the time at which it was to be sent. Figures beside the rate are those of the
confirmation. A generator that is late is part of what is found: see `late_p99_ms`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import interval, make_table
from multitask_benchmarks.rounds import interleaved
from multitask_benchmarks.serving.closed import capacity
from multitask_benchmarks.serving.figures import Figures
from multitask_benchmarks.serving.opened import Generators
from multitask_benchmarks.serving.search import Search
from multitask_benchmarks.serving.servers import (
    Server,
    add_server_arguments,
    choose_servers,
    start_all,
)
from multitask_benchmarks.serving.steady import hold, within_share
from multitask_benchmarks.texts import read_texts

IN_TIME = 0.99
# A first search knows only the capacity; later ones begin where the last one ended.
_FIRST_SHARE, _FIRST_STEP, _NEXT_STEP = 0.6, 1.4, 1.15
_CONFIRMATIONS = 8
_SHOWN = {
    "p50_ms": "p50 ms", "p99_ms": "p99 ms", "queue_ms": "queue ms", "compute_ms": "compute ms",
    "mean_batch": "batch", "server_cpu_ms_a_text": "CPU ms", "late_p99_ms": "late p99 ms",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving max-rate`."""
    add = parser.add_argument
    add_server_arguments(parser, required=False)
    add("--p99-ms", type=float, nargs="+", default=[50.0], metavar="MS",
        help="targets (default: 50)")  # fmt: skip
    add("--tolerance", type=float, default=0.05, help="of the found rate [%(default)s]")
    add("--callers", type=int, default=64, help="that measure the capacity [%(default)s]")
    add("--rounds", type=int, default=5, help="searches of each (default: %(default)s)")
    add("--seconds", type=float, default=3.0, help="at each rate tried [%(default)s]")
    add("--confirm-seconds", type=float, default=8.0, help="at the found rate [%(default)s]")
    add("--generators", type=int, default=1, help="processes that send (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")


@dataclass
class Hunt:
    """All searches for one server's rate at one target.

    rate: where the next search begins. trails: of each round, the rates tried and whether good.
    """

    server: Server
    target_ms: float
    rate: float
    figures: Figures
    trails: list[list[tuple[float, bool]]] = field(default_factory=list)

    def run(
        self, generators: Generators, seeds: Iterator[int], options: argparse.Namespace
    ) -> None:
        """One round: search, then confirm."""

        def is_good(rate: float) -> bool:
            calls, _ = hold(self.server, generators, rate, options.seconds, next(seeds))
            return within_share(calls, self.target_ms) >= IN_TIME

        search = Search(is_good, options.tolerance)
        found = search.highest(self.rate, _NEXT_STEP if self.trails else _FIRST_STEP)
        self.trails.append([(round(rate, 2), good) for rate, good in search.tried])
        if found is None or not self._confirm(found, generators, seeds, options):
            self.figures.add({"max_rate_per_s": 0.0})

    def _confirm(
        self,
        rate: float,
        generators: Generators,
        seeds: Iterator[int],
        options: argparse.Namespace,
    ) -> bool:
        """Hold the rate for longer, a little lower each time until it is good."""
        for _ in range(_CONFIRMATIONS):
            calls, found = hold(self.server, generators, rate, options.confirm_seconds, next(seeds))
            share = within_share(calls, self.target_ms)
            self.trails[-1].append((round(rate, 2), share >= IN_TIME))
            if share >= IN_TIME:
                self.rate = rate
                self.figures.add({"max_rate_per_s": rate, "within_share": share, **found})
                return True
            rate /= 1 + options.tolerance
        return False


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "p99_ms", "tolerance", "callers", "rounds", "seconds",
        "confirm_seconds", "generators", "texts")  # fmt: skip
    chosen = choose_servers(options)
    texts = read_texts(options.data, options.texts)
    lenient = options.allow_different
    with (
        start_all(chosen, texts, options.checkpoint, allow_different=lenient) as line_up,
        Generators(options.generators) as generators,
    ):
        found = measure(line_up.servers, generators, options)
    trails = [
        {"subject": one.server.name, **one.figures.point, "tried": one.trails} for one in found
    ]
    record = make_record(
        options,
        baseline=line_up.baseline if len(line_up.servers) > 1 else "",
        measurements=[one.figures.measured() for one in found],
        details={**line_up.to_dict(), "in_time_share": IN_TIME, "searches": trails},
    )
    return finish(options, record, [table(found), *line_up.tables()], brief(found))


def measure(
    servers: Sequence[Server], generators: Generators, options: argparse.Namespace
) -> list[Hunt]:
    """All rounds of every server at every target."""
    hunts = []
    for server in servers:
        with server.awake():
            most = capacity(server.endpoint, options.callers).texts_per_s
        for target_ms in options.p99_ms:
            figures = Figures(server.name, {"target_p99_ms": target_ms})
            hunts.append(Hunt(server, target_ms, _FIRST_SHARE * most, figures))
    seeds = count(options.seed)
    with tqdm(total=options.rounds * len(hunts), desc="max-rate", leave=False) as bar:
        for hunt in interleaved(hunts, options.rounds):
            hunt.run(generators, seeds, options)
            bar.update()
    return hunts


def table(found: Sequence[Hunt]) -> Table:
    """A row for each server and target."""
    rows = [
        (
            one.figures.subject,
            one.target_ms,
            interval(rate) if (rate := one.figures.estimate("max_rate_per_s")) else None,
            *(one.figures.median(name) for name in _SHOWN),
        )
        for one in found
    ]
    columns = ("server", "p99 target ms", "highest rate/s", *_SHOWN.values())
    caption = (
        "beside the rate, as it was confirmed; queue, compute: Triton's means a text; CPU: the "
        "server's a text; late: the generator itself"
    )
    return make_table("Highest rate in time: medians over searches", columns, rows, caption)


def brief(found: Sequence[Hunt]) -> list[dict[str, Any]]:
    """The line for programs: medians."""
    names = ("max_rate_per_s", "p50_ms", "p99_ms", "late_p99_ms")
    return [
        {
            "subject": one.figures.subject,
            **one.figures.point,
            **{name: one.figures.median(name) for name in names},
        }
        for one in found
    ]
