"""Benchmark the served model against the artifact in process and the PyTorch checkpoint.

    python -m multitask_benchmarks stages --url localhost:8001 --artifact artifacts/demo \\
        --checkpoint runs/demo --data data/demo/test.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from multitask_benchmarks.agreement import compare, require
from multitask_benchmarks.recording import (
    add_result_arguments,
    finish,
    make_record,
    require_positive,
)
from multitask_benchmarks.report import agreement_table, progress_console, results_table
from multitask_benchmarks.rounds import Cell, Result, measure_rounds, summarise
from multitask_benchmarks.subjects import ServedModel, Subject, open_artifact, open_checkpoint
from multitask_benchmarks.texts import read_texts
from multitask_core.errors import ConfigError

SIZES = (1, 8, 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `stages`."""
    add = parser.add_argument
    add("--url", help="running server, host:port of its gRPC endpoint")
    add("--artifact", type=Path, help="exported artifact, measured in process")
    add(
        "--variant",
        action="append",
        default=[],
        help="graph of the artifact; may be repeated (default: the one the export chose)",
    )
    add("--checkpoint", type=Path, help="training run; the baseline of the ratios")
    add("--data", required=True, help="texts to answer: JSONL, CoNLL, .gz too")
    add("--texts", type=int, default=256, help="how many of them (default: %(default)s)")
    add(
        "--sizes",
        type=int,
        nargs="+",
        default=list(SIZES),
        metavar="N",
        help="concurrent callers, or texts in a call in process (default: 1 8 32)",
    )
    add("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    add(
        "--seconds",
        type=float,
        default=2.0,
        help="each subject at each size in each round (default: %(default)s)",
    )
    add("--allow-different", action="store_true",
        help="report different answers instead of refusing")  # fmt: skip
    add_result_arguments(parser)


def execute(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit status."""
    require_positive(options, "rounds", "texts", "sizes", "seconds")
    _check(options)
    texts = read_texts(options.data, options.texts)
    subjects = _subjects(options)
    agreement = _agree(subjects, texts, allow_different=options.allow_different)
    cells = _measure(subjects, texts, options)
    baseline = subjects[0].name
    results = summarise(cells, baseline)
    record = make_record(
        options,
        baseline=baseline,
        measurements=[cell.measured() for cell in cells],
        details={
            "texts": len(texts),
            "subjects": {subject.name: subject.origin for subject in subjects},
            "agreement": agreement,
        },
    )
    tables = [results_table(results, baseline), agreement_table(agreement, baseline)]
    return finish(options, record, tables, {"agreement": agreement, "results": _brief(results)})


def _check(options: argparse.Namespace) -> None:
    if not (options.url or options.artifact or options.checkpoint):
        raise ConfigError("nothing to measure: give --url, --artifact, --checkpoint or several")
    if options.variant and not options.artifact:
        raise ConfigError("--variant names a graph of an artifact: give --artifact too")


def _subjects(options: argparse.Namespace) -> list[Subject]:
    """The baseline first."""
    subjects: list[Subject] = []
    if options.checkpoint:
        subjects.append(open_checkpoint(options.checkpoint))
    if options.artifact:
        variants = options.variant or [""]
        subjects.extend(open_artifact(options.artifact, variant) for variant in variants)
    if options.url:
        subjects.append(ServedModel(options.url))
    return subjects


def _agree(
    subjects: Sequence[Subject], texts: Sequence[str], *, allow_different: bool
) -> dict[str, dict[str, Any]]:
    """Compare every subject with the first before anything is timed; raises ParityError."""
    reference = subjects[0].predict(texts)
    counts = {}
    for subject in subjects[1:]:
        agreement = compare(texts, subject.predict(texts), reference)
        require(agreement, subject.name, subjects[0].name, allow_different=allow_different)
        counts[subject.name] = agreement.to_dict()
    return counts


def _measure(
    subjects: Sequence[Subject], texts: Sequence[str], options: argparse.Namespace
) -> list[Cell]:
    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_console(), transient=True) as progress:
        task = progress.add_task("", total=options.rounds * len(subjects) * len(options.sizes))
        return measure_rounds(
            subjects,
            texts,
            options.sizes,
            rounds=options.rounds,
            seconds=options.seconds,
            advance=lambda: progress.advance(task),
        )


def _brief(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "subject": one.cell.subject,
            "size": one.cell.size,
            "p50_ms": round(one.p50_ms.median, 3),
            "texts_per_s": round(one.texts_per_s.median, 1),
            "speedup": round(one.speedup.median, 3) if one.speedup else None,
            "noisy": one.noisy,
        }
        for one in results
    ]
