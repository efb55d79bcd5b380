"""Compare an artifact's graphs by themselves: rows of pieces in, logits out, no tokenizing.

    python -m multitask_benchmarks graphs --artifact artifacts/demo --data data/demo/test.jsonl

Rows arrive in random order, as requests do. A padded graph pads each batch to its longest row, a
packed one computes the pieces that are there. `--lengths long-tail` joins and cuts the sentences to
lengths of a log-normal distribution (median 16, one in twenty above 80), up to the window.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from multitask_benchmarks.load import Measurement
from multitask_benchmarks.recording import (
    add_result_arguments,
    finish,
    make_record,
    require_positive,
)
from multitask_benchmarks.report import make_table, progress_console, results_table
from multitask_benchmarks.rounds import Cell, measure_rounds, summarise
from multitask_benchmarks.texts import read_texts
from multitask_core.artifact import Artifact
from multitask_core.batching import RowLogits, Rows
from multitask_core.errors import ParityError
from multitask_core.session import OnnxEncoder
from multitask_core.text import TextEncoder

LENGTHS = ("data", "long-tail")
MEDIAN, SIGMA = 16.0, 1.0
EXACT = 1e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `graphs`."""
    add = parser.add_argument
    add("--artifact", type=Path, required=True, help="exported artifact")
    add("--data", required=True, help="texts that give the rows: JSONL, CoNLL, .gz too")
    add(
        "--variant",
        nargs="+",
        default=["fp32", "fp32-fused", "fp32-packed"],
        help="graphs to compare; the first is the baseline (default: fp32 fp32-fused fp32-packed)",
    )
    add("--lengths", choices=LENGTHS, default="data", help="lengths of the rows [%(default)s]")
    add("--rows", type=int, default=512, help="how many rows (default: %(default)s)")
    add("--sizes", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="rows in a batch")
    add("--rounds", type=int, default=7, help="interleaved rounds (default: %(default)s)")
    add("--seconds", type=float, default=1.5, help="each graph at each size in each round")
    add("--threads", type=int, default=0, help="intra-op threads; 0: all CPUs")
    add_result_arguments(parser)


class Graph:
    """One graph, fed with rows; `measure` is what `rounds.measure_rounds` calls."""

    def __init__(self, name: str, encoder: OnnxEncoder) -> None:
        self.name = name
        self.encoder = encoder

    def measure(self, rows: Rows, size: int, seconds: float) -> Measurement:
        """Batches of `size` rows, one after the other."""
        result = Measurement()
        stream = cycle(rows)
        start_s = now_s = time.perf_counter()
        while now_s < start_s + seconds:
            batch = list(islice(stream, size))
            begin_s = time.perf_counter()
            self.encoder(batch)
            now_s = time.perf_counter()
            result.latencies_ms.append(1e3 * (now_s - begin_s))
        result.texts, result.seconds = size * len(result.latencies_ms), now_s - start_s
        return result


def execute(options: argparse.Namespace) -> int:
    """Run the comparison; returns the exit status."""
    require_positive(options, "rows", "rounds", "sizes", "seconds")
    artifact = Artifact.open(options.artifact)
    texts = read_texts(options.data, options.rows)
    rows = make_rows(artifact.text_encoder(), texts, options.rows, options.lengths)
    graphs = [
        Graph(name, OnnxEncoder(artifact.graph(name), artifact.schema, threads=options.threads))
        for name in options.variant
    ]
    differences = _differences(graphs, _mixes(rows, artifact.text_encoder().windowing.max_length))
    cells = _measure(graphs, rows, options)
    lengths = length_facts([len(row) for row in rows], options.sizes)
    record = make_record(
        options,
        baseline=graphs[0].name,
        measurements=[cell.measured("batch", "rows_per_s") for cell in cells],
        details={"lengths": lengths, "differences": differences},
    )
    tables = [results_table(summarise(cells, graphs[0].name), graphs[0].name), _lengths(lengths)]
    return finish(options, record, tables, lengths, default=f"graphs {options.lengths}")


def make_rows(encoder: TextEncoder, texts: Sequence[str], count: int, lengths: str) -> Rows:
    """Rows of piece ids in random order, special tokens included."""
    encoded = encoder(texts)
    rows = [encoder.input_ids(one, window) for one in encoded for window in one.windows]
    random = np.random.default_rng(0)
    if lengths == "long-tail":
        line = [piece for one in encoded for piece in one.ids]
        line *= 2 + encoder.windowing.max_length // max(1, len(line))
        ends = len(encoder.prefix) + len(encoder.suffix)
        wanted = np.exp(random.normal(np.log(MEDIAN), SIGMA, count)).astype(int)
        wanted = np.clip(wanted, ends + 1, encoder.windowing.max_length) - ends
        starts = random.integers(0, len(line) - encoder.windowing.max_length, count)
        rows = [
            [*encoder.prefix, *line[start : start + length], *encoder.suffix]
            for start, length in zip(starts.tolist(), wanted.tolist(), strict=True)
        ]
    return [rows[index] for index in random.permutation(len(rows))[:count]]


def _mixes(rows: Rows, window: int) -> list[Rows]:
    """Batches of every kind: one piece, a full window, both together, one row, many rows."""
    line = [piece for row in rows for piece in row]
    full = (line * (1 + window // len(line)))[:window]
    return [
        [full[:1]],
        [full],
        [full[:1], full, full[:2]],
        [rows[0]],
        *(rows[first : first + 32] for first in range(0, min(len(rows), 128), 32)),
    ]


def _differences(graphs: Sequence[Graph], batches: Sequence[Rows]) -> dict[str, float]:
    """Largest logit difference of each graph from the first.

    Raises ParityError for an FP32 graph that answers otherwise.
    """
    found = {graph.name: 0.0 for graph in graphs[1:]}
    for rows in batches:
        expected = graphs[0].encoder(rows)
        for graph in graphs[1:]:
            difference = _largest(expected, graph.encoder(rows))
            found[graph.name] = max(found[graph.name], difference)
    for name, difference in found.items():
        if name.startswith("fp32") and difference > EXACT:
            raise ParityError(f"{name}: logits differ by {difference:.1e} from {graphs[0].name}")
    return found


def _largest(mine: Sequence[RowLogits], theirs: Sequence[RowLogits]) -> float:
    return max(
        float(np.abs(left - right).max())
        for pair in zip(mine, theirs, strict=True)
        for left, right in zip(*pair, strict=True)
    )


def _measure(graphs: Sequence[Graph], rows: Rows, options: argparse.Namespace) -> list[Cell]:
    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_console(), transient=True) as progress:
        task = progress.add_task("", total=options.rounds * len(graphs) * len(options.sizes))
        return measure_rounds(
            graphs,
            rows,
            options.sizes,
            rounds=options.rounds,
            seconds=options.seconds,
            advance=lambda: progress.advance(task),
        )


def length_facts(lengths: Sequence[int], sizes: Sequence[int]) -> dict[str, Any]:
    """Lengths in pieces, and the share of padding when rows are batched as they come."""
    return {
        "rows": len(lengths),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "longest": max(lengths),
        "padding_share": {
            str(size): round(1 - _real_share(lengths, size), 3) for size in sizes if size > 1
        },
    }


def _lengths(facts: dict[str, Any]) -> Table:
    shares = [
        (f"padding in batches of {size}", f"{share:.0%}")
        for size, share in facts["padding_share"].items()
    ]
    rows = [(name, facts[name]) for name in ("rows", "median", "p95", "longest")]
    return make_table("Rows and their lengths in pieces", ("what", "value"), [*rows, *shares])


def _real_share(lengths: Sequence[int], size: int) -> float:
    """Share of real pieces when batches of `size` are padded to their longest row."""
    batches = [lengths[first : first + size] for first in range(0, len(lengths), size)]
    return sum(lengths) / sum(len(batch) * max(batch) for batch in batches)
