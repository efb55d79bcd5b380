"""Publish and roll back under load: does a request fail, and is every answer its version's own?

    python -m multitask_benchmarks serving rollover --artifact artifacts/a \\
        --artifact-b artifacts/b --data data/demo/test.jsonl

A repository with artifact A is written and served. While 32 callers send requests, B is published
and rolled back ten times through `python -m multitask_serve`, as an operator would. Every answer
names the version that gave it and must be what that version's artifact answers in this process:
same label, same entities, scores within a tolerance. Give artifacts whose answers differ, or the
check says little; how many texts tell them apart is part of the result.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import finish, make_record, require_positive
from multitask_benchmarks.report import make_table
from multitask_benchmarks.serving.answers import SCORE_TOLERANCE, Verdict, distinguishing, judge
from multitask_benchmarks.serving.calls import Calls, percentiles
from multitask_benchmarks.serving.closed import run_closed
from multitask_benchmarks.serving.served import Served, serve_triton
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_benchmarks.subjects import open_artifact
from multitask_benchmarks.texts import read_texts
from multitask_core import manifest
from multitask_core.artifact import KIND
from multitask_core.errors import ConfigError, MultiTaskError, ServeError
from multitask_core.signature import TEXT_MODEL
from multitask_export.repository import write_repository

_REASON = "rollover benchmark: the artifacts are meant to differ"
_COMMAND_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `serving rollover`."""
    add = parser.add_argument
    add("--artifact", type=Path, required=True, help="artifact A, live at first")
    add("--artifact-b", type=Path, required=True, help="artifact B, published again and again")
    add("--variant", default="", help="graph that gives the expected answers [what is served]")
    add("--sentences", type=Path, help="passed to publish: sentences for its comparison")
    add("--requests", type=int, default=20_000, help="at least so many [%(default)s]")
    add("--times", type=int, default=10, help="publish and roll back (default: %(default)s)")
    add("--concurrency", type=int, default=32, help="concurrent callers (default: %(default)s)")
    add("--tolerance", type=float, default=SCORE_TOLERANCE,
        help="between a score and the expected one (default: %(default)s)")  # fmt: skip


class Operator(Protocol):
    """Who changes versions while requests come."""

    def publish(self) -> None:
        """Put B live as a new version."""
        ...

    def rollback(self) -> None:
        """Put the version before live again."""
        ...

    def versions(self) -> dict[str, str]:
        """Version → A or B, for those that stand in the repository now."""
        ...


class Step(NamedTuple):
    """One command: when it began and ended, in seconds from the load's start."""

    command: str
    begin_s: float
    end_s: float


class CommandLine:
    """An operator at a shell; the commands find the server by themselves."""

    def __init__(self, repository: Path, a: Path, b: Path, sentences: Path | None = None) -> None:
        self._repository, self._b = repository.resolve(), b.resolve()
        self._sentences = ["--sentences", str(sentences.resolve())] if sentences else []
        self._names = {manifest.read(b, KIND).identity: "B", manifest.read(a, KIND).identity: "A"}

    def publish(self) -> None:
        """`multitask_serve publish`, whatever its comparison says."""
        self._run("publish", str(self._b), "--force", _REASON, *self._sentences)

    def rollback(self) -> None:
        """`multitask_serve rollback`."""
        self._run("rollback")

    def versions(self) -> dict[str, str]:
        """Read from the version folders' manifests."""
        found = {}
        for path in (self._repository / TEXT_MODEL).glob(f"[0-9]*/{manifest.NAME}"):
            name = self._names.get(manifest.read(path.parent, KIND).identity)
            if name:
                found[path.parent.name] = name
        return found

    def _run(self, command: str, *arguments: str) -> None:
        line = [sys.executable, "-m", "multitask_serve", command, *arguments]
        line += ["--repository", str(self._repository)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=_COMMAND_S)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise ServeError(f"multitask_serve {command} ended with {done.returncode}: {said}")


class Rollover:
    """Changes versions in a thread of its own while the load runs."""

    def __init__(self, operator: Operator, times: int) -> None:
        self.steps: list[Step] = []
        self.artifacts = operator.versions()
        self.error: Exception | None = None
        self._operator, self._times = operator, times
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def busy(self) -> bool:
        """Whether versions are still to be changed."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        start_s = time.monotonic()
        operator = self._operator
        try:
            for _ in range(self._times):
                for command in (operator.publish, operator.rollback):
                    begin_s = time.monotonic() - start_s
                    command()
                    end_s = time.monotonic() - start_s
                    self.steps.append(Step(command.__name__, round(begin_s, 3), round(end_s, 3)))
                    # Old versions are deleted as new ones come: what stood there once counts.
                    self.artifacts.update(operator.versions())
        except (MultiTaskError, OSError, subprocess.SubprocessError) as error:
            self.error = error


def execute(options: argparse.Namespace) -> int:
    """Run the scenario; 0 where every request was answered as its version had to, else 1."""
    require_positive(options, "requests", "times", "concurrency", "texts", "tolerance")
    a, b = options.artifact, options.artifact_b
    if manifest.read(a, KIND).identity == manifest.read(b, KIND).identity:
        raise ConfigError(f"{a} and {b} are the same artifact: no answer could tell them apart")
    texts = read_texts(options.data, options.texts)
    expected = {
        name: open_artifact(folder, options.variant).predict(texts)
        for name, folder in (("A", a), ("B", b))
    }
    with tempfile.TemporaryDirectory(prefix="rollover-") as folder:
        repository = Path(folder) / "repository"
        write_repository(a, repository)
        with serve_triton("Triton", repository) as served:
            rollover = Rollover(CommandLine(repository, a, b, options.sentences), options.times)
            calls = load(served, texts, rollover, options.requests, options.concurrency)
            endpoint = GrpcEndpoint(served.url, texts)
    verdict = judge(calls, endpoint, rollover.artifacts, expected, options.tolerance)
    apart = distinguishing(expected["A"], expected["B"], options.tolerance)
    sound = not (rollover.error or verdict.faults)
    found = result(calls, rollover, verdict, apart)
    body = {"subject": served.facts, "finished": sound, **found}
    finish(options, make_record(options, details=body), tables(body), brief(body))
    if rollover.error:
        raise ServeError(f"the versions were not all changed: {rollover.error}")
    return 0 if sound else 1


def load(
    served: Served, texts: Sequence[str], rollover: Rollover, requests: int, concurrency: int
) -> Calls:
    """Send at least so many requests, and go on until the versions have all been changed."""
    endpoint = GrpcEndpoint(served.url, texts)
    with tqdm(total=requests, desc="rollover", unit="request", leave=False) as bar:
        rollover.start()
        picks = _picks(len(texts), requests, rollover, bar)
        return run_closed(endpoint, picks, concurrency, keep=True)


def _picks(texts: int, requests: int, rollover: Rollover, bar: Any) -> Iterator[int]:  # noqa: ANN401
    for number in count():
        if number >= requests and not rollover.busy:
            return
        bar.update()
        yield number % texts


def result(calls: Calls, rollover: Rollover, verdict: Verdict, apart: int) -> dict[str, Any]:
    """The scenario's part of the result file."""
    return {
        "requests": len(calls),
        "seconds": round(calls.seconds, 2),
        "requests_per_s": round(len(calls) / calls.seconds, 1),
        "latency": percentiles(calls.answered().latency_ms),
        "texts_that_tell_a_from_b": apart,
        "artifact_of_version": rollover.artifacts,
        "steps": [one._asdict() for one in rollover.steps],
        "operator_error": str(rollover.error) if rollover.error else "",
        "errors": calls.examples,
        "verdict": verdict.to_dict(),
    }


def tables(body: dict[str, Any]) -> list[Table]:
    """Counts, and who answered."""
    verdict = body["verdict"]
    facts = [
        ("requests", body["requests"]),
        ("failed", sum(verdict["failed"].values())),
        ("wrong, unreadable, of no version",
            "{wrong}, {unreadable}, {of_no_version}".format(**verdict)),
        ("largest score difference", f"{verdict['largest_score_difference']:.1e}"),
        ("publishes and rollbacks done", len(body["steps"])),
        ("texts that tell A from B", body["texts_that_tell_a_from_b"]),
        ("p50, p99, largest, ms", "{p50_ms}, {p99_ms}, {max_ms}".format(**body["latency"])),
    ]  # fmt: skip
    rows = [
        (version, body["artifact_of_version"].get(version, "?"), answers)
        for version, answers in verdict["by_version"].items()
    ]
    return [
        make_table("Versions changed under load", ("what", "value"), facts),
        make_table("Answers by version", ("version", "artifact", "answers"), rows),
    ]


def brief(body: dict[str, Any]) -> dict[str, Any]:
    """The line for programs."""
    return {
        "requests": body["requests"],
        "faults": body["verdict"]["faults"],
        "steps": len(body["steps"]),
        "by_version": body["verdict"]["by_version"],
        "p99_ms": body["latency"]["p99_ms"],
    }
