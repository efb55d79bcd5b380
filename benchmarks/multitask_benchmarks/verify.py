"""Send a labelled corpus through the server and compare every answer with the checkpoint's own.

    python -m multitask_benchmarks verify --url localhost:8001 --checkpoint runs/demo \\
        --data data/demo/test.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multitask_benchmarks.agreement import Agreement, compare, require
from multitask_benchmarks.load import Measurement, run_load
from multitask_benchmarks.recording import add_result_arguments, make_record, write_record
from multitask_benchmarks.report import console, facts_table
from multitask_benchmarks.stats import round_stats
from multitask_benchmarks.subjects import open_checkpoint
from multitask_client import Client
from multitask_core.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `verify`."""
    add = parser.add_argument
    add("--url", required=True, help="running server, host:port of its gRPC endpoint")
    add("--checkpoint", type=Path, required=True, help="training run the model came from")
    add("--data", required=True, help="labelled text: JSONL, CoNLL, .gz too")
    add("--concurrency", type=int, default=32, help="concurrent callers (default: %(default)s)")
    add("--allow-different", action="store_true",
        help="exit with status 0 although answers differ")  # fmt: skip
    add_result_arguments(parser, output=None)


def execute(options: argparse.Namespace) -> int:
    """Compare; returns 0, or raises ParityError where answers differ."""
    if options.concurrency < 1:
        raise ConfigError(f"--concurrency {options.concurrency}: at least one caller is needed")
    # The reader's package loads torch, which --help does without.
    from multitask_train.data import read_examples
    from multitask_train.metrics import score

    examples = read_examples(options.data)
    texts = [example.text for example in examples]
    checkpoint = open_checkpoint(options.checkpoint)
    with Client(options.url) as client:
        client.wait_until_ready(30.0)
    measured = run_load(options.url, texts, options.concurrency)
    served = [measured.predictions[index] for index in range(len(texts))]
    reference = checkpoint.predict(texts)
    agreement = compare(texts, served, reference)
    scores = {"server": score(examples, served), "checkpoint": score(examples, reference)}
    details = _details(agreement, scores, measured)
    facts = _facts(details, options.concurrency)
    console().print(facts_table(f"{Path(options.data).name} over gRPC", facts))
    file = {}
    if options.output:
        sound = agreement.complete or options.allow_different
        found = make_record(options, details={"finished": sound, **details})
        file["file"] = str(write_record(options, found))
    print(json.dumps({**details, **file}, ensure_ascii=False), flush=True)
    require(agreement, "server", "checkpoint", allow_different=options.allow_different)
    return 0


def _details(
    agreement: Agreement, scores: dict[str, dict[str, Any]], measured: Measurement
) -> dict[str, Any]:
    stats = round_stats(measured.latencies_ms, measured.texts, measured.seconds)
    assert measured.server is not None
    executions = measured.server.executions
    return {
        "agreement": agreement.to_dict(),
        "metrics": scores,
        "requests": measured.server.inferences,
        "executions": executions,
        "mean_batch": round(measured.server.inferences / executions, 2) if executions else None,
        "p50_ms": round(stats.p50_ms, 2),
        "p95_ms": round(stats.p95_ms, 2),
        "texts_per_s": round(stats.texts_per_s, 1),
    }


def _facts(record: dict[str, Any], concurrency: int) -> Sequence[tuple[str, str]]:
    same, texts = record["agreement"], record["agreement"]["texts"]
    speed = f"p50 {record['p50_ms']} ms, p95 {record['p95_ms']} ms, {record['texts_per_s']} texts/s"
    batch = f" (mean batch {record['mean_batch']})" if record["mean_batch"] else ""
    return [
        ("same label as the checkpoint", _share(same["labels_equal"], texts)),
        ("same entities as the checkpoint", _share(same["entities_equal"], texts)),
        *_metric_facts(record["metrics"]),
        ("requests", f"{record['requests']:,} in {record['executions']:,} executions{batch}"),
        (f"latency at concurrency {concurrency}", speed),
    ]


def _metric_facts(metrics: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Label accuracy and strict entity F1 against gold, for tasks that the corpus annotates."""
    titles = (("label accuracy", "classification", "accuracy"), ("entity F1", "ner", "f1"))
    return [
        (
            f"{title} (checkpoint)",
            f"{metrics['server'][task][name]:.2%} ({metrics['checkpoint'][task][name]:.2%})",
        )
        for title, task, name in titles
        if metrics["server"][task] is not None
    ]


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.2%})"
