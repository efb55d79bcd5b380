"""Benchmark the served model against the artifact in process and the PyTorch checkpoint.

    python -m multitask_benchmarks run --url localhost:8001 --artifact artifacts/demo \\
        --checkpoint runs/demo --data data/demo/test.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from multitask_benchmarks.agreement import compare, require
from multitask_benchmarks.machine import describe_machine, hardware_slug, slug
from multitask_benchmarks.report import console, progress_console, results_table
from multitask_benchmarks.rounds import Cell, Result, measure_rounds, summarise
from multitask_benchmarks.subjects import ServedModel, Subject, open_artifact, open_checkpoint
from multitask_core.errors import ConfigError
from multitask_core.files import write_json
from multitask_core.manifest import sha256

SCHEMA_VERSION = 1
SIZES = (1, 8, 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run`."""
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
    add("--name", help="model's name in the result file (default: the folder's)")
    add(
        "--output",
        type=Path,
        default=Path("benchmarks/results"),
        help="folder of the result file (default: %(default)s)",
    )
    add("--allow-different", action="store_true",
        help="report different answers instead of refusing")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit status."""
    _check(options)
    texts = read_texts(options.data, options.texts)
    subjects = _subjects(options)
    agreement = _agree(subjects, texts, allow_different=options.allow_different)
    cells = _measure(subjects, texts, options)
    baseline = subjects[0].name
    results = summarise(cells, baseline)
    record = _record(options, subjects, agreement, results, len(texts))
    path = options.output / file_name(record)
    write_json(path, record)
    out = console()
    out.print(results_table(results, baseline))
    for name, counts in agreement.items():
        out.print(f"{name}: same answers on {counts['all_equal']} of {counts['texts']} texts")
    out.print(f"written to {path}")
    brief = {key: record[key] for key in ("model", "date", "agreement")}
    print(json.dumps({**brief, "file": str(path), "results": _brief(results)}, ensure_ascii=False))
    return 0


def read_texts(source: str, limit: int) -> list[str]:
    """Texts of a corpus in a fixed random order: corpora are often sorted by label."""
    # The reader's package loads torch, which --help and a faulty option do without.
    from multitask_train.data import read_examples

    texts = [example.text for example in read_examples(source)]
    random.Random(0).shuffle(texts)  # noqa: S311  no secret
    return texts[:limit]


def file_name(record: dict[str, Any]) -> str:
    """`<model>_<hardware>_<yyyymm>.json`."""
    month = record["date"][:7].replace("-", "")
    return f"{slug(record['model'])}_{hardware_slug(record['machine'])}_{month}.json"


def _check(options: argparse.Namespace) -> None:
    if not (options.url or options.artifact or options.checkpoint):
        raise ConfigError("nothing to measure: give --url, --artifact, --checkpoint or several")
    if options.variant and not options.artifact:
        raise ConfigError("--variant names a graph of an artifact: give --artifact too")
    numbers = (options.rounds, options.texts, *options.sizes)
    if min(numbers) < 1 or options.seconds <= 0:
        raise ConfigError("--rounds, --texts and --sizes must be at least 1, --seconds above 0")


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


def _record(
    options: argparse.Namespace,
    subjects: Sequence[Subject],
    agreement: dict[str, dict[str, Any]],
    results: Sequence[Result],
    texts: int,
) -> dict[str, Any]:
    """Everything that the result file says; paths are reduced to names."""
    folder = options.artifact or options.checkpoint
    data = Path(options.data)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": options.name or (folder.resolve().name if folder else "multitask"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "config": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "sizes": options.sizes,
            "texts": texts,
            "data": data.name,
            "data_sha256": sha256(data) if data.is_file() else "",
        },
        "baseline": subjects[0].name,
        "subjects": {subject.name: subject.origin for subject in subjects},
        "agreement": agreement,
        "results": [result.to_dict() for result in results],
    }


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
