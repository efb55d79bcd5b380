"""Our closed loop against NVIDIA's perf_analyzer: two load generators, one server, same texts.

    python -m multitask_benchmarks serving cross-check --repository triton_models \\
        --data data/demo/test.jsonl

In turns at every number of callers. Where the two differ by more than the rounds scatter, do not
trust either before you know why; perf_analyzer costs the machine less CPU than a generator in
Python, so that on few cores its figures are somewhat better. Without the program on PATH the result
says that it was not run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import interval, make_table
from multitask_benchmarks.rounds import interleaved
from multitask_benchmarks.serving import perf_analyzer
from multitask_benchmarks.serving.alone import serve_alone
from multitask_benchmarks.serving.closed import WARM_UP_S, for_seconds, run_closed
from multitask_benchmarks.serving.figures import Figures, triton_view
from multitask_benchmarks.serving.meter import Meter
from multitask_benchmarks.serving.served import Served, parse_repository
from multitask_benchmarks.serving.servers import add_check_arguments
from multitask_benchmarks.stats import ratio
from multitask_benchmarks.texts import read_texts

OURS = "closed loop"
_COMPARED = ("answers_per_s", "p50_ms", "p99_ms", "queue_ms", "compute_ms")

Load = Callable[[int, float], dict[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving cross-check`."""
    add = parser.add_argument
    add_check_arguments(parser)
    add("--sizes", type=int, nargs="+", default=[1, 8, 32], metavar="N",
        help="concurrent callers (default: 1 8 32)")  # fmt: skip
    add("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    add("--seconds", type=float, default=3.0, help="each in each round (default: %(default)s)")


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "sizes", "rounds", "seconds", "texts")
    name, repository = parse_repository(options.repository)
    program = perf_analyzer.find()
    if program is None:
        not_run = {perf_analyzer.NAME: f"no {perf_analyzer.NAME} on PATH"}
        record = make_record(options, details={"not_run": not_run})
        table = make_table("Not run", ("program", "reason"), list(not_run.items()))
        return finish(options, record, [table], {"not_run": not_run})
    texts = read_texts(options.data, options.texts)
    with serve_alone(name, repository, texts, options) as (served, about):
        found = measure(served, program, texts, options)
    record = make_record(
        options,
        baseline=OURS,
        measurements=[one.measured() for one in found],
        details=about,
    )
    return finish(options, record, [comparison(found)], brief(found))


def measure(
    served: Served, program: str, texts: Sequence[str], options: argparse.Namespace
) -> list[Figures]:
    """All rounds of both at every number of callers."""
    endpoint = served.endpoint(texts)

    def ours(callers: int, seconds: float) -> dict[str, float]:
        with Meter(served) as meter:
            calls = run_closed(endpoint, for_seconds(len(texts), seconds), callers)
        stats = calls.stats()
        view = triton_view(meter.spent)
        latencies = {name: getattr(stats, name) for name in ("p50_ms", "p95_ms", "p99_ms")}
        counted = {name: value for name, value in view.items() if value is not None}
        return {
            "answers_per_s": stats.texts_per_s, "mean_ms": stats.mean_ms, **latencies, **counted,
        }  # fmt: skip

    def theirs(callers: int, seconds: float) -> dict[str, float]:
        return perf_analyzer.run(program, served.url, texts, callers, seconds)

    loads: list[tuple[str, Load]] = [(OURS, ours), (perf_analyzer.NAME, theirs)]
    steps = [(Figures(name, {"callers": n}), load) for n in options.sizes for name, load in loads]
    run_closed(endpoint, for_seconds(len(texts), WARM_UP_S), max(options.sizes)).stats()
    with tqdm(total=options.rounds * len(steps), desc="cross-check", leave=False) as bar:
        for figures, load in interleaved(steps, options.rounds):
            figures.add(load(int(figures.point["callers"]), options.seconds))
            bar.update()
    return [figures for figures, _ in steps]


def comparison(found: Sequence[Figures]) -> Table:
    """Medians of both and their ratio, a row for each figure and number of callers."""
    rows = []
    for ours, theirs in _pairs(found):
        for name in _COMPARED:
            if min(ours.values.get(name, [0.0])) > 0 and name in theirs.values:
                shown = interval(ratio(theirs.values[name], ours.values[name]))
                medians = (ours.median(name), theirs.median(name))
                rows.append((f"{ours.point['callers']} callers", name, *medians, shown))
    columns = ("load", "figure", OURS, perf_analyzer.NAME, "theirs / ours")
    return make_table("Two load generators on one server", columns, rows)


def brief(found: Sequence[Figures]) -> list[dict[str, Any]]:
    """The line for programs: medians of the ratios."""
    return [
        {
            **ours.point,
            **{
                name: round(ratio(theirs.values[name], ours.values[name]).median, 3)
                for name in ("answers_per_s", "p50_ms", "p99_ms")
            },
        }
        for ours, theirs in _pairs(found)
    ]


def _pairs(found: Sequence[Figures]) -> list[tuple[Figures, Figures]]:
    return list(zip(found[::2], found[1::2], strict=True))
