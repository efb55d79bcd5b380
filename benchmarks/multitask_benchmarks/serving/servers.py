"""Ours and others in one run: started together, their answers checked, idle ones kept quiet."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from multitask_benchmarks.agreement import compare, require
from multitask_benchmarks.load import Measurement
from multitask_benchmarks.report import agreement_table, make_table
from multitask_benchmarks.serving.closed import for_seconds, once, run_closed
from multitask_benchmarks.serving.meter import Meter
from multitask_benchmarks.serving.peers import Peer, parse_peer, serve_peer
from multitask_benchmarks.serving.processes import cpu_s, pause, resume
from multitask_benchmarks.serving.served import (
    Served,
    parse_repository,
    parse_url,
    running_triton,
    serve_triton,
)
from multitask_benchmarks.subjects import open_checkpoint
from multitask_core.errors import ClientError, ConfigError, ServeError
from multitask_core.prediction import Prediction

CHECK_CONCURRENCY = 32
IDLE_S = 2.0
# Cores that an idle server may use before it has to pause for the others.
IDLE_CORES = 0.03


class Server:
    """One server; `measure` is what `rounds.measure_rounds` calls.

    idle_cpu: cores that it uses while nobody asks.
    """

    def __init__(self, served: Served, texts: Sequence[str]) -> None:
        self.name, self.served = served.name, served
        self.triton = served.form is None
        self.endpoint = served.endpoint(texts)
        self.idle_cpu = 0.0
        self._next = 0

    def predict(self) -> list[Prediction]:
        """Every text's answer, many callers at once; raises ClientError for one without."""
        texts = self.endpoint.texts
        calls = run_closed(self.endpoint, once(len(texts)), CHECK_CONCURRENCY, keep=True)
        calls.stats()
        found = dict(zip(calls.index, calls.replies, strict=True))
        return [self.endpoint.read(found[index]).prediction for index in range(len(texts))]

    def measure(self, texts: Sequence[str], size: int, seconds: float) -> Measurement:
        """`size` callers for so long; a failure is an error, since no figure could stand then.

        The texts go on where they ended last time: a slow server is to see them all, too.
        """
        picks = for_seconds(len(texts), seconds, self._next)
        with self.awake(), Meter(self.served) as meter:
            calls = run_closed(self.endpoint, picks, size)
        calls.stats()
        self._next = (self._next + len(calls)) % len(texts)
        spent = meter.spent
        return Measurement(
            calls.latency_ms, len(calls), calls.seconds, spent.triton,
            server_cpu_s=spent.cpu_s, client_cpu_s=calls.client_cpu_s,
            server_rss_mib=spent.rss_mib, server_pss_mib=spent.pss_mib,
        )  # fmt: skip

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for the block, where it is paused in the others' turns."""
        if not self.restless:
            yield
            return
        resume(self.served.pid)
        try:
            yield
        finally:
            pause(self.served.pid)

    @property
    def restless(self) -> bool:
        """Whether it disturbs the others while it is idle."""
        return self.idle_cpu > IDLE_CORES

    def watch_idle(self) -> None:
        """Note what the server costs while nobody asks: it runs beside the others' turns."""
        if not self.served.pid:
            return
        before_cpu_s = cpu_s(self.served.pid)
        time.sleep(IDLE_S)
        self.idle_cpu = (cpu_s(self.served.pid) - before_cpu_s) / IDLE_S

    def to_dict(self) -> dict[str, Any]:
        """What it is, JSON-ready."""
        idle = {"idle_cpu_cores": round(self.idle_cpu, 3), "paused": self.restless}
        return {**self.served.facts, **idle}


@dataclass
class LineUp:
    """The servers of one run, peers first. not_run: title of a peer → why it is not among them."""

    servers: list[Server] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return self.servers[0].name

    @property
    def ours(self) -> Server:
        """The first Triton."""
        return next(one for one in self.servers if one.triton)

    def to_dict(self) -> dict[str, Any]:
        """For the result file's details."""
        return {
            "subjects": {one.name: one.to_dict() for one in self.servers},
            "not_run": self.not_run,
            "agreement": self.agreement,
        }

    def tables(self) -> list[Table]:
        """Answers against the checkpoint's, and who is missing."""
        found = [agreement_table(self.agreement, "checkpoint")] if self.agreement else []
        if self.not_run:
            rows = list(self.not_run.items())
            found.append(make_table("Not run", ("server", "reason"), rows))
        return found


def add_server_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Peers, and the checkpoint whose weights all servers have."""
    add = parser.add_argument
    add_check_arguments(parser, required=required)
    add("--peer", action="append", default=[], metavar="NAME[:PRECISION[:WxT]][=PYTHON]",
        help="another server, with W workers of T threads; run by the environment that `peers "
        "install NAME` made, or by PYTHON; repeatable")  # fmt: skip


# Of a peer's labels, those that must be the checkpoint's: BF16 changes one in hundreds.
_LEAST_LABELS = 0.95


def add_check_arguments(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Against what answers are compared before anything is timed."""
    add = parser.add_argument
    add("--checkpoint", type=Path, required=required,
        help="answers must equal its; peers load it")  # fmt: skip
    add("--allow-different", action="store_true",
        help="report different answers instead of refusing")  # fmt: skip


class Choice(NamedTuple):
    """What a run was asked to start, and by address what runs already."""

    repositories: list[tuple[str, Path]]
    peers: list[Peer]
    running: list[tuple[str, str]]


def choose_servers(options: argparse.Namespace) -> Choice:
    """Read --repository, --url where there is one, and --peer.

    Raises ConfigError, also for names that are not different, and where nothing of ours is named.
    """
    chosen = Choice(
        [parse_repository(value) for value in options.repository],
        [parse_peer(value) for value in options.peer],
        [parse_url(value) for value in vars(options).get("url", [])],
    )
    ours = [name for name, _ in (*chosen.repositories, *chosen.running)]
    names = [*(peer.title for peer in chosen.peers), *ours]
    if not ours:
        raise ConfigError("name a server of ours: --repository DIR, or --url HOST:PORT")
    if len(set(names)) < len(names):
        raise ConfigError(f"servers need different names, got {names}: write NAME=DIR, NAME=URL")
    if chosen.peers and not options.checkpoint:
        raise ConfigError("--peer needs --checkpoint, whose weights it serves")
    return chosen


@contextmanager
def start_all(
    chosen: Choice, texts: Sequence[str], checkpoint: Path | None, *, allow_different: bool
) -> Iterator[LineUp]:
    """Start one server after the other, check its answers, and pause it where it is restless.

    A peer that does not start or answer is left out with the reason. Raises ParityError for a wrong
    answer of ours; without a checkpoint nothing is compared.
    """
    line_up = LineUp()
    reference = open_checkpoint(checkpoint).predict(texts) if checkpoint else None

    def join(stack: ExitStack, served: Served) -> None:
        server = Server(served, texts)
        if reference is not None:
            found = check([server], texts, reference, allow_different=allow_different)
            line_up.agreement.update(found)
        stack.enter_context(quiet([server]))
        line_up.servers.append(server)

    with ExitStack() as stack:
        for peer in chosen.peers:
            assert checkpoint is not None, "peers need a checkpoint"
            with ExitStack() as own:
                try:
                    join(own, own.enter_context(serve_peer(peer, checkpoint)))
                except (ServeError, ClientError) as error:
                    line_up.not_run[peer.title] = str(error)
                else:
                    stack.enter_context(own.pop_all())
        for name, folder in chosen.repositories:
            join(stack, stack.enter_context(serve_triton(name, folder)))
        for name, url in chosen.running:
            join(stack, running_triton(name, url))
        yield line_up


@contextmanager
def quiet(servers: Sequence[Server]) -> Iterator[None]:
    """Servers that use CPU while nobody asks stand still outside their own turns."""
    for server in servers:
        server.watch_idle()
    restless = [server.served.pid for server in servers if server.restless]
    try:
        for pid in restless:
            pause(pid)
        yield
    finally:  # a stopped process cannot end in good order
        for pid in restless:
            resume(pid)


def check(
    servers: Sequence[Server],
    texts: Sequence[str],
    reference: Sequence[Prediction],
    *,
    allow_different: bool,
) -> dict[str, dict[str, Any]]:
    """Compare every server's answers with the checkpoint's.

    One of ours that differs raises ParityError, unless that is allowed. A peer's differences are
    counted, since it tokenises and groups words in its own way; one that gives other labels on more
    than a few texts serves another model and raises ServeError.
    """
    counts: dict[str, dict[str, Any]] = {}
    for server in servers:
        agreement = compare(texts, server.predict(), reference)
        if server.triton:
            require(agreement, server.name, "checkpoint", allow_different=allow_different)
        elif agreement.labels_equal < _LEAST_LABELS * agreement.texts:
            raise ServeError(
                f"{server.name} gives another label than the checkpoint on "
                f"{agreement.texts - agreement.labels_equal} of {agreement.texts} texts: it serves "
                "another model"
            )
        counts[server.name] = {**agreement.to_dict(), "examples": agreement.examples}
    return counts
