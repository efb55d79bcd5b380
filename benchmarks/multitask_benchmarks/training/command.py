"""Train with this package's loop and with the Hugging Face Trainer, in turns, and compare.

    python -m multitask_benchmarks training --data data/demo --encoder minilm --name minilm-demo

Three subjects learn from the same windows with the same model, batch size, precision, optimiser and
rates, each in fresh processes in every round:

    trainer           transformers.Trainer with its defaults: batches in random order; several
                      processes do not look for unused parameters
    trainer-grouped   the same with group_by_length, its own remedy against padding
    ours              the plan and the loop of `multitask_train fit`, without logs

Tokens/s counts real tokens, without padding, over one epoch (or --updates) that follows the
warm-up; starting and loading are left out. Several processes share out one batch and the threads:
2 processes with 16 windows and 1 thread each stand beside 1 process with 32 windows and 2 threads.

Before anything is timed all subjects make three updates on one batch without dropout, in fp16
those that its scale lets through: losses and gradient norms must agree, or nothing is timed at that
precision and number of processes. Nothing else should run on the machine. Ctrl-C stops the workers
too. The result goes to <output>/<name>_<hardware>_<yyyymm>.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from tqdm import tqdm

from multitask_benchmarks.recording import (
    add_result_arguments,
    finish,
    make_record,
    require_positive,
)
from multitask_benchmarks.report import brackets, interval, make_table
from multitask_benchmarks.stats import NOISY_SPREAD
from multitask_benchmarks.training.check import CHECK_UPDATES, Checked, check
from multitask_benchmarks.training.jobs import TRAINER, Job, Report
from multitask_benchmarks.training.launch import run_job
from multitask_benchmarks.training.measure import (
    Result,
    Subject,
    all_subjects,
    measure,
    summarise,
)
from multitask_core.errors import ConfigError

if TYPE_CHECKING:  # it loads torch, which --help and a faulty option do without
    from multitask_benchmarks.training.prepare import Material

_PRECISIONS = ("no", "bf16", "fp16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `training`."""
    add = parser.add_argument
    add("--data", required=True, help="labelled text: whatever `multitask_train fit` reads")
    add("--split", default="train", help="which part of a folder or hub id [%(default)s]")
    add("--encoder", default="minilm", help="minilm, a folder or a hub id [%(default)s]")
    add("--sentences", type=int, default=2000, help="at most so many, at random [%(default)s]")
    add("--max-length", type=int, default=128, help="tokens in a window [%(default)s]")
    add("--batch-size", type=int, default=32,
        help="windows in an update of all processes together [%(default)s]")  # fmt: skip
    add("--precision", nargs="+", choices=_PRECISIONS, default=["no", "bf16"],
        help="one or several (default: no bf16; fp16 needs a GPU)")  # fmt: skip
    add("--processes", type=int, nargs="+", default=[1, 2], metavar="N",
        help="processes that train together, each on a GPU of its own if there is one "
        "(default: 1 2)")  # fmt: skip
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
        help="CPU threads of all processes together [%(default)s]")  # fmt: skip
    add("--warmup", type=int, default=8, metavar="N",
        help="updates before the clock starts [%(default)s]")  # fmt: skip
    add("--updates", type=int, default=0, metavar="N", help="timed updates [0: one epoch's]")
    add("--rounds", type=int, default=5, metavar="N", help="interleaved rounds [%(default)s]")
    add("--seed", type=int, default=13, help="of heads, sentences and their order [%(default)s]")
    add_result_arguments(parser)


def execute(options: argparse.Namespace) -> int:
    """Run the comparison; returns the exit status."""
    _check(options)
    from multitask_benchmarks.training.prepare import prepare

    _check_devices(options.processes)

    subjects = all_subjects(options.precision, options.processes)
    with tempfile.TemporaryDirectory(prefix="multitask-training-") as folder:
        material = prepare(
            Path(folder),
            options.data,
            options.split,
            encoder=options.encoder,
            sentences=options.sentences,
            batch_size=options.batch_size,
            max_length=options.max_length,
            seed=options.seed,
        )
        checked, results = _run(subjects, material, options, Path(folder) / "run")
    record = make_record(
        options,
        baseline=TRAINER,
        measurements=[one.measured() for one in results],
        details={
            "data": material.facts,
            "parameters": material.parameters,
            "check": checked.agreement,
            "not_run": checked.refused,
            "rounds": [one.to_dict() for one in results],
        },
    )
    tables = [results_table(results, material.facts)]
    if checked.refused:
        tables.append(make_table("Not measured", ("what", "why"), list(checked.refused.items())))
    return finish(options, record, tables, brief(results))


def make_job(
    subject: Subject, material: Material, options: argparse.Namespace, folder: Path, *, exact: bool
) -> Job:
    """What a subject trains in a round, or exactly and on one batch, for the check."""
    epoch = -(-len(material.lengths) // options.batch_size)
    return Job(
        side=subject.side,
        model=str(material.model),
        features=str(material.batch if exact else material.features),
        folder=str(folder),
        pad_id=material.pad_id,
        precision=subject.precision,
        batch_size=options.batch_size // subject.processes,
        warmup=0 if exact else options.warmup,
        updates=CHECK_UPDATES[subject.precision] if exact else options.updates or epoch,
        threads=max(1, options.threads // subject.processes),
        seed=options.seed,
        exact=exact,
    )


def results_table(results: Sequence[Result], facts: dict[str, Any]) -> Table:
    """One row for each subject, those that are compared together."""
    rows = [
        (
            f"{one.cell.subject.side}{' ~' if one.noisy else ''}",
            one.cell.subject.precision,
            one.cell.subject.processes,
            interval(one.tokens_per_s),
            interval(one.speedup) if one.speedup else "1",
            one.windows_per_s.median,
            f"{one.padding.median:.1%}",
            one.cpu_ms_per_1000_tokens.median,
            one.peak_mib.median,
            one.device_mib.median if one.device_mib else None,
        )
        for one in results
    ]
    columns = ("subject", "precision", "processes", "tokens/s", "against trainer", "windows/s",
        "padding", "CPU ms/1000 tokens", "peak MiB", "on the GPU")  # fmt: skip
    rounds = len(results[0].cell.rounds)
    return make_table(
        f"Medians over {rounds} interleaved rounds {brackets(rounds)}",
        columns,
        rows,
        f"{facts['windows']:,} windows of {facts['median_tokens']:.0f} tokens (median), "
        f"{facts['p95_tokens']:.0f} (95 %), {facts['longest_tokens']} (longest); "
        f"~ marks rounds that differ by more than {NOISY_SPREAD:.0%}",
    )


def brief(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The line for programs: medians."""
    return [
        {
            "subject": one.cell.subject.side,
            "precision": one.cell.subject.precision,
            "processes": one.cell.subject.processes,
            "tokens_per_s": round(one.tokens_per_s.median, 1),
            "speedup": round(one.speedup.median, 3) if one.speedup else None,
            "noisy": one.noisy,
        }
        for one in results
    ]


def _check(options: argparse.Namespace) -> None:
    names = ("sentences", "max_length", "batch_size", "processes", "threads", "warmup", "rounds")
    require_positive(options, *names)
    if options.updates < 0:
        raise ConfigError(f"--updates {options.updates}: it must be 0, for an epoch, or above")
    for count in options.processes:
        if options.batch_size % count:
            raise ConfigError(
                f"--batch-size {options.batch_size} cannot be shared out evenly to {count} "
                "processes; give a multiple"
            )


def _check_devices(processes: Sequence[int]) -> None:
    """Raise ConfigError for more processes than GPUs, where there are any."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and max(processes) > gpus:
        raise ConfigError(
            f"--processes {max(processes)}: each needs a GPU of its own, and torch sees {gpus}; "
            "give fewer, or set CUDA_VISIBLE_DEVICES= (to nothing) to train on the CPU"
        )


def _run(
    subjects: Sequence[Subject], material: Material, options: argparse.Namespace, folder: Path
) -> tuple[Checked, list[Result]]:
    """The check, then all rounds of what passed it."""

    def train(subject: Subject, *, exact: bool = False) -> Sequence[Report]:
        job = make_job(subject, material, options, folder, exact=exact)
        bar.set_postfix_str(str(subject))
        reports = run_job(job, subject.processes)
        bar.update()
        return reports

    with tqdm(total=len(subjects) * (1 + options.rounds), unit="run", leave=False) as bar:
        bar.set_description("check")
        checked = check(subjects, lambda subject: train(subject, exact=True))
        bar.total = len(subjects) + len(checked.subjects) * options.rounds
        bar.set_description("training")
        cells = measure(checked.subjects, train, options.rounds)
    return checked, summarise(cells)
