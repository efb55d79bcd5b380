"""`python -m multitask_train compare SETTINGS.yaml`: every cell with every seed, and a report."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from multitask_core.config import describe
from multitask_core.errors import MultiTaskError
from multitask_train.comparison import report, results
from multitask_train.comparison.cells import Run, make_runs
from multitask_train.comparison.execution import Failure, execute, held, stop_signals
from multitask_train.comparison.settings import CompareSettings, Comparison, load_comparison

DESCRIPTION = """Train every strategy and every balancer with every seed, and say what differs.

Each run is one `fit` in a process of its own. Three baselines are always among the cells: each task
alone, and both with equal weights. A comparison that was stopped or killed goes on with the same
command: what is finished is not done again, what was cut off goes on from its last saved state. A
run counts as finished for its settings and the content of its corpora; change one, and it is done
anew beside the old one.

OUTPUT/comparison.md     mean ± standard deviation over the seeds, difference from equal weights
OUTPUT/comparison.png    accuracy and entity F1 of all cells
OUTPUT/comparison.json   settings, environment, every run's metrics, the table
OUTPUT/runs/CELL_seed-N_ID/   settings.yaml, log.txt, result.json, and run/ as `fit` writes it

The table is printed too; the last line of standard output is its means and standard deviations as
JSON. Exit status: 0, or 1 where a run failed: the others are finished and reported."""

EXAMPLES = """examples:
  python -m multitask_train compare train/configs/compare-snips.yaml --dry-run
  python -m multitask_train compare train/configs/compare-snips.yaml \\
      --fit.data.train DIR --fit.data.dev DIR --fit.data.test DIR --seeds "[1, 2]"

settings, in the file or as --name value [default]:
"""


class RunError(MultiTaskError):
    """Some runs of a comparison did not finish."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line and its help."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    own = [line for line in describe(CompareSettings) if not line.startswith("  --fit.")]
    rest = "  --fit.SECTION.NAME           any setting of `fit`, see `fit --help`"
    parser.epilog = EXAMPLES + "\n".join([*own, rest])
    parser.add_argument("settings", type=Path, help="YAML file; stands before all settings")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs and what is done already"
    )


def run(options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Carry the command out; raises RunError, ConfigError, DataError, InterruptedRunError."""
    comparison = load_comparison(options.settings, rest)
    runs = make_runs(comparison)
    if options.dry_run:
        _list(runs)
        return
    with stop_signals(), held(comparison.settings.output) as lock:
        failures = _train(comparison, runs, lock)
        made = report.make_report(comparison, runs, failures)
        report.write_report(made)
    print(report.format_table(made.table, len(comparison.settings.seeds)))
    print(f"\n{comparison.settings.output / report.MARKDOWN}")
    print(report.last_line(made))
    if failures:
        raise RunError(_describe(failures, len(runs)))


def _list(runs: Sequence[Run]) -> None:
    states = [one.state for one in runs]
    width = max(len(one.name) for one in runs)
    for one, state in zip(runs, states, strict=True):
        print(f"{one.name:<{width}}  {state:<8}  {one.folder}")
    counts = Counter(states)
    print(json.dumps({"runs": len(runs), **{name: counts[name] for name in Run.STATES}}))


def _train(comparison: Comparison, runs: Sequence[Run], lock: int) -> list[Failure]:
    settings = comparison.settings
    done = [one for one in runs if one.state == "done"]
    for one in done:  # the last comparison may have been killed before it came to this
        if not (settings.keep_checkpoints or one.kept):
            results.drop_weights(one)
    left = [one for one in runs if one not in done]
    with _Progress(len(runs), len(done), keep=settings.keep_checkpoints) as progress:
        return execute(
            left, settings.jobs, lock, finished=progress.finished, waiting=progress.waiting
        )


class _Progress(contextlib.AbstractContextManager["_Progress"]):
    """One bar over all runs, a line for each that ends; drops the weights of finished ones."""

    def __init__(self, total: int, done: int, *, keep: bool) -> None:
        self._keep = keep
        self._failed = 0
        self._bar: tqdm[Any] = tqdm(total=total, initial=done, unit="run", smoothing=0)

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def finished(self, run: Run, failure: Failure | None) -> None:
        """Count one run."""
        if failure:
            self._failed += 1
            text = f"failed, {failure.reason}: {run.log}"
        else:
            text = report.result_line((run.result() or {})["metrics"])
            if not (self._keep or run.kept):
                results.drop_weights(run)
        self._bar.write(f"{run.name}: {text}", file=sys.stderr)
        self._bar.update()

    def waiting(self, names: Sequence[str]) -> None:
        """Show what runs; the clock goes on where somebody watches."""
        failed = f", {self._failed} failed" if self._failed else ""
        self._bar.set_postfix_str(", ".join(names) + failed, refresh=False)
        if sys.stderr.isatty():
            self._bar.refresh()


def _describe(failures: Sequence[Failure], total: int) -> str:
    """Every failed run with its last words."""
    lines = [f"{len(failures)} of {total} runs failed; the report holds the others"]
    for failure in failures:
        lines.append(f"{failure.run.name}: {failure.reason}; log: {failure.run.log}")
        lines += [f"    {line}" for line in failure.tail]
    lines.append("the same command does the failed ones again")
    return "\n".join(lines)
