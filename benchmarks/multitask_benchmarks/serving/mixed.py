"""What long texts do to the latency of short ones.

    python -m multitask_benchmarks serving mixed --repository triton_models \\
        --artifact artifacts/demo --data data/demo/test.jsonl

So many callers send short texts in a closed loop, alone and with long ones beside them, in turns.
Long texts are made of the data's own sentences and are sent so that they are a given share of all
requests; the number of callers with short ones stays the same. Triton's own means of queue and
compute stand beside the callers' view; its counts do not tell long texts from short ones.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import interval, make_table
from multitask_benchmarks.results import Measured, Point
from multitask_benchmarks.serving.alone import serve_alone
from multitask_benchmarks.serving.calls import Calls, percentiles
from multitask_benchmarks.serving.closed import closed_loop, for_seconds
from multitask_benchmarks.serving.endpoint import Connection
from multitask_benchmarks.serving.figures import Figures, triton_view
from multitask_benchmarks.serving.meter import Meter
from multitask_benchmarks.serving.served import Served, parse_repository
from multitask_benchmarks.serving.servers import add_check_arguments
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_benchmarks.stats import Estimate, estimate, ratio
from multitask_benchmarks.texts import read_texts
from multitask_core.errors import ConfigError

ALONE, MIXED = "short texts alone", "short texts beside long ones"
_WARM_UP_S = 1.0
_STATISTICS = ("p50_ms", "p95_ms", "p99_ms", "texts_per_s")
# The figures of the table.
_TITLES = {
    "p50_ms": "p50, ms", "p99_ms": "p99, ms", "queue_ms": "queue, ms", "compute_ms": "compute, ms",
    "mean_batch": "batch, texts",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving mixed`."""
    add = parser.add_argument
    add_check_arguments(parser)
    add("--artifact", type=Path, help="names the model in the result file")
    add("--share", type=float, default=0.05, help="of long texts (default: %(default)s)")
    add("--words", type=int, default=400, help="in a long text (default: %(default)s)")
    add("--sizes", type=int, nargs="+", default=[8, 32], metavar="N",
        help="callers with short texts (default: 8 32)")  # fmt: skip
    add("--most-long", type=int, default=16,
        help="long texts under way at once, whatever their share [%(default)s]")  # fmt: skip
    add("--rounds", type=int, default=5, help="alone and mixed in turn (default: %(default)s)")
    add("--seconds", type=float, default=8.0, help="each of both, in each round [%(default)s]")


@dataclass
class Mix:
    """Short texts alone and beside long ones at one number of callers; long: percentiles of these.

    Both have a value of each figure for every round, or the figure is left out.
    """

    alone: Figures
    mixed: Figures
    long: list[dict[str, float | int | None]] = field(default_factory=list)

    @classmethod
    def at(cls, callers: int) -> Mix:
        """One without rounds yet."""
        point: Point = {"callers": callers}
        return cls(Figures(ALONE, point), Figures(MIXED, point))

    @property
    def callers(self) -> int:
        """Those with short texts."""
        return int(self.alone.point["callers"])

    @property
    def counted(self) -> list[str]:
        """The figures of both, in their order: of another server than Triton none of its view."""
        return [name for name in _TITLES if name in self.alone.values and name in self.mixed.values]

    def ratio(self, name: str) -> Estimate:
        """Mixed to alone of one figure, formed within each round."""
        return ratio(self.mixed.values[name], self.alone.values[name])

    def measured(self) -> list[Measured]:
        """For the result file."""
        return [self.alone.measured(), self.mixed.measured()]


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; returns the exit status."""
    require_positive(options, "sizes", "rounds", "seconds", "texts", "words", "most_long")
    if not 0 < options.share < 1:
        raise ConfigError(f"--share {options.share}: it must be between 0 and 1")
    name, repository = parse_repository(options.repository)
    texts = read_texts(options.data, options.texts)
    long = long_texts(texts, options.words)
    with serve_alone(name, repository, [*texts, *long], options) as (served, about):
        mixes = measure(served, texts, long, options)
    record = make_record(
        options,
        baseline=ALONE,
        measurements=[row for one in mixes for row in one.measured()],
        details={**about, "long": {str(one.callers): one.long for one in mixes}},
    )
    return finish(options, record, [table(mixes)], brief(mixes))


def long_texts(texts: Sequence[str], words: int, count: int = 64) -> list[str]:
    """Texts of exactly so many words, sentence after sentence of the data."""
    stream = (word for text in cycle(texts) for word in text.split())
    return [" ".join(next(stream) for _ in range(words)) for _ in range(count)]


def measure(
    served: Served, texts: Sequence[str], long: Sequence[str], options: argparse.Namespace
) -> list[Mix]:
    """All rounds; every other one runs backwards."""
    mixes = [Mix.at(callers) for callers in options.sizes]
    plan = [(mix, share) for mix in mixes for share in (0.0, options.share)]
    endpoint, heavy = GrpcEndpoint(served.url, texts), GrpcEndpoint(served.url, long)
    run_mixed(endpoint, heavy, max(options.sizes), options.share, _WARM_UP_S, options.most_long)
    with tqdm(total=options.rounds * len(plan), desc="mixed", leave=False) as bar:
        for number in range(options.rounds):
            for mix, share in plan[:: 1 if number % 2 == 0 else -1]:
                with Meter(served) as meter:
                    short, slow = run_mixed(
                        endpoint, heavy, mix.callers, share, options.seconds, options.most_long
                    )
                view = triton_view(meter.spent)
                if share:
                    mix.mixed.add(_figures(short, view) | {"long_share": _share(short, slow)})
                    mix.long.append(_percentiles(slow))
                else:
                    mix.alone.add(_figures(short, view))
                bar.update()
    return mixes


def run_mixed(
    endpoint: GrpcEndpoint,
    heavy: GrpcEndpoint,
    callers: int,
    share: float,
    seconds: float,
    most_long: int,
) -> tuple[Calls, Calls]:
    """Short texts by `callers` for so long, and the long ones that belong to them."""
    return asyncio.run(_run(endpoint, heavy, callers, share, seconds, most_long))


async def _run(
    endpoint: GrpcEndpoint,
    heavy: GrpcEndpoint,
    callers: int,
    share: float,
    seconds: float,
    most_long: int,
) -> tuple[Calls, Calls]:
    short_way, long_way = await endpoint.open(), await heavy.open()
    long = LongTexts(long_way, len(heavy.texts), share, most_long)
    try:
        picks = for_seconds(len(endpoint.texts), seconds)
        short = await closed_loop(short_way, picks, callers, ended=long.follow)
        await long.finish()
    finally:
        await short_way.close()
        await long_way.close()
    return short, long.calls


class LongTexts:
    """Sends long texts so that they are `share` of all requests, at most `most` at once."""

    def __init__(self, connection: Connection, texts: int, share: float, most: int) -> None:
        self.calls = Calls()
        self._connection, self._texts, self._most = connection, texts, most
        self._for_each_short = share / (1 - share)
        self._owed = 0.0
        self._sent = 0
        self._under_way: set[asyncio.Task[None]] = set()

    def follow(self) -> None:
        """One short text was answered; what cannot be sent now is sent later."""
        self._owed += self._for_each_short
        while self._owed >= 1 and len(self._under_way) < self._most:
            self._owed -= 1
            task = asyncio.create_task(self._send(self._sent % self._texts))
            self._sent += 1
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def finish(self) -> None:
        """Wait for those under way."""
        await asyncio.gather(*self._under_way)

    async def _send(self, index: int) -> None:
        one = await closed_loop(self._connection, iter([index]), 1)
        self.calls.extend(one)


def _figures(short: Calls, view: Mapping[str, float | None]) -> dict[str, float | None]:
    stats = short.stats()
    return {name: getattr(stats, name) for name in _STATISTICS} | dict(view)


def _share(short: Calls, long: Calls) -> float:
    return len(long) / (len(long) + len(short))


def _percentiles(long: Calls) -> dict[str, float | int | None]:
    if len(long):
        long.stats()
    return percentiles(long.latency_ms)


def table(mixes: Sequence[Mix]) -> Table:
    """One row for each number of callers and statistic."""
    rows = [
        (
            f"{one.callers} callers", _TITLES[name],
            interval(estimate(one.alone.values[name])), interval(estimate(one.mixed.values[name])),
            _ratio(one, name), _long(one, name), f"{one.mixed.median('long_share'):.1%}",
        )
        for one in mixes
        for name in one.counted
    ]  # fmt: skip
    columns = ("load", "", "short alone", "short mixed", "ratio", "long", "long share")
    caption = "queue, compute, batch: Triton's means over all texts, long ones too"
    return make_table("Short texts beside long ones", columns, rows, caption=caption)


def brief(mixes: Sequence[Mix]) -> list[dict[str, Any]]:
    """The line for programs: medians."""
    return [
        {
            "callers": one.callers,
            "p50_ratio": round(one.ratio("p50_ms").median, 3),
            "p99_ratio": round(one.ratio("p99_ms").median, 3),
            "p99_alone_ms": round(estimate(one.alone.values["p99_ms"]).median, 2),
            "p99_mixed_ms": round(estimate(one.mixed.values["p99_ms"]).median, 2),
        }
        for one in mixes
    ]


def _ratio(mix: Mix, name: str) -> str | None:
    """None where a queue was empty all along."""
    return interval(mix.ratio(name)) if min(mix.alone.values[name]) > 0 else None


def _long(mix: Mix, name: str) -> float | None:
    values = [value for one in mix.long if (value := one.get(name)) is not None]
    return estimate(values).median if values else None
