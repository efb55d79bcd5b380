"""Show the served model at work: varied sentences with their entities, and the latency of one call.

python -m multitask_benchmarks demo --url localhost:8001 --data data/demo/test.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from multitask_benchmarks.report import console, facts_table
from multitask_benchmarks.stats import RoundStats, round_stats
from multitask_client import Client
from multitask_core.prediction import Prediction

SENTENCES = 12
REQUESTS = 200
# Distinct on dark and light backgrounds; types beyond these share colours.
_COLOURS = (
    "bold green", "bold magenta", "bold cyan", "bold red", "bold blue", "bold yellow",
    "underline green", "underline magenta", "underline cyan", "underline red",
)  # fmt: skip
_FOLDERS = ("checkpoint", "artifact", "repository")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `demo`."""
    add = parser.add_argument
    add("--url", default="localhost:8001", help="running server (default: %(default)s)")
    add("--data", required=True, help="labelled text to take sentences from: JSONL, CoNLL, .gz")
    for name in _FOLDERS:
        add(f"--{name}", type=Path, help=f"{name} folder, to be named at the end")


def execute(options: argparse.Namespace) -> int:
    """Show sentences, latency and folders; returns the exit status."""
    texts = pick_texts(options.data)
    with Client(options.url) as client:
        client.wait_until_ready(30.0)
        answers = [client.predict([text])[0] for text in texts]
        stats = measure(client, texts)
    out = console()
    out.print(answers_table(texts, answers, out))
    folders = {name: getattr(options, name) for name in _FOLDERS if getattr(options, name)}
    out.print(facts_table(f"one call at a time to {options.url}", _facts(stats, folders)))
    result = {
        "p50_ms": round(stats.p50_ms, 3),
        "p95_ms": round(stats.p95_ms, 3),
        "requests": stats.calls,
        **{name: str(path) for name, path in folders.items()},
    }
    print(json.dumps(result, ensure_ascii=False))
    return 0


def pick_texts(source: str, count: int = SENTENCES) -> list[str]:
    """Sentences of different labels: label by label the one with most entities, then the next."""
    # The reader's package loads torch, which --help does without.
    from multitask_train.data import read_examples

    groups: dict[str, list[tuple[int, str]]] = {}
    for example in read_examples(source):
        entry = (-len(example.entities or ()), example.text)
        groups.setdefault(example.label or "", []).append(entry)
    ordered = [sorted(set(group)) for _, group in sorted(groups.items())]
    longest = max(map(len, ordered))
    layers = [group[rank][1] for rank in range(longest) for group in ordered if rank < len(group)]
    return layers[:count]


def measure(client: Client, texts: Sequence[str], requests: int = REQUESTS) -> RoundStats:
    """Latency of single calls, one after the other."""
    latencies_ms: list[float] = []
    start_s = time.perf_counter()
    for text in islice(cycle(texts), requests):
        begin_s = time.perf_counter()
        client.predict([text])
        latencies_ms.append(1e3 * (time.perf_counter() - begin_s))
    return round_stats(latencies_ms, requests, time.perf_counter() - start_s)


def answers_table(texts: Sequence[str], answers: Sequence[Prediction], out: Console) -> Table:
    """A sentence a row, its entities marked; a legend of types where colours mark them."""
    types = sorted({entity.type for answer in answers for entity in answer.entities})
    styles = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(types)}
    coloured = out.color_system is not None
    caption = Text("  ").join(Text(name, style) for name, style in styles.items())
    table = Table(title="What the model says", caption=caption if coloured else None)
    table.add_column("sentence", ratio=3)
    table.add_column("label")
    table.add_column("score", justify="right")
    for text, answer in zip(texts, answers, strict=True):
        marked = highlight(text, answer, styles) if coloured else Text(markup(text, answer))
        table.add_row(marked, answer.label, f"{answer.score:.3f}")
    return table


def highlight(text: str, answer: Prediction, styles: Mapping[str, str]) -> Text:
    """The text with every entity in its type's colour."""
    marked = Text(text)
    for entity in answer.entities:
        marked.stylize(styles[entity.type], entity.start, entity.end)
    return marked


def markup(text: str, answer: Prediction) -> str:
    """The text with every entity as `[text](type)`."""
    parts, position = [], 0
    for entity in answer.entities:
        parts += [text[position : entity.start], f"[{entity.text}]({entity.type})"]
        position = entity.end
    return "".join([*parts, text[position:]])


def _facts(stats: RoundStats, folders: Mapping[str, Path]) -> list[tuple[str, str]]:
    latency = f"p50 {stats.p50_ms:.2f} ms, p95 {stats.p95_ms:.2f} ms over {stats.calls} requests"
    return [("latency", latency), *((name, str(path)) for name, path in folders.items())]
