"""Run the scenarios of one or several files, one after the other.

    python -m multitask_benchmarks run benchmarks/scenarios/cpu-quick.yaml \\
        --set artifact=artifacts/demo checkpoint=runs/demo data=data/demo/test.jsonl

A file names scenarios with their command and options; every option is checked before the first one
starts. Each runs in a process of its own and writes its part of the model's result file. One that
fails does not stop the others: its error stands in the table at the end, and the exit status is 1.
--resume leaves out those that the result file already holds with the same settings, the same
model and data, and the same commit, finished and with no server missing. --quick takes the shorter
settings that the file gives, and adds "quick" to the names: full results are kept.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from multitask_benchmarks.machine import describe_machine, hardware_slug, slug
from multitask_benchmarks.recording import RESULTS, make_config, model_name
from multitask_benchmarks.report import console, make_table
from multitask_benchmarks.results import ScenarioRecord, read_results
from multitask_benchmarks.suite.files import parse_assignments, read_files
from multitask_benchmarks.suite.launch import launch
from multitask_benchmarks.suite.plan import QUICK, Step, make_steps
from multitask_core.errors import ConfigError

DONE, FAILED, PRESENT, LEFT_OUT = "done", "failed", "present", "left out"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run`."""
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="scenario files, YAML")
    add("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", dest="assigned",
        help="values of the files' variables, artifact=DIR for one")  # fmt: skip
    add("--only", nargs="+", default=[], metavar="SCENARIO", help="these alone")
    add(
        "--quick", action="store_true", help="the files' shorter settings, under names of their own"
    )
    add("--resume", action="store_true", help="leave out what the result file holds already")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--list", action="store_true", help="name the scenarios, run none")
    show.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    add("--name", help="model's name in the result file (default: the folder's)")
    add("--output", type=Path, default=RESULTS, metavar="DIR",
        help="folder of the result file (default: %(default)s)")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a scenario went: done, failed, present (in the file already) or left out."""

    scenario: str
    status: str
    seconds: float = 0.0
    message: str = ""


def execute(options: argparse.Namespace) -> int:
    """Run all; returns 1 where a scenario failed, else 0."""
    files = read_files(options.files)
    assigned = parse_assignments(options.assigned, files)
    common = ["--output", str(options.output), *(["--name", options.name] if options.name else [])]
    steps = make_steps(
        files,
        assigned,
        options.parser,
        common,
        quick=options.quick,
        has_gpu=bool(describe_machine()["gpus"]),
    )
    steps = _only(steps, options.only)
    if options.list or options.dry_run:
        for step in steps:
            print(step.name if options.list else _shown(step))
        return 0
    outcomes = run_steps(steps, launch, resume=options.resume)
    return _finish(outcomes, options.output)


def run_steps(
    steps: Sequence[Step], start: Callable[[Sequence[str]], str], *, resume: bool = False
) -> list[Outcome]:
    """Run each step with `start`, which returns its error or ""."""
    outcomes = []
    for number, step in enumerate(steps, 1):
        if step.remedy:
            outcomes.append(Outcome(step.name, LEFT_OUT, message=step.remedy))
            continue
        if resume and is_present(step.options, step.name):
            outcomes.append(Outcome(step.name, PRESENT))
            continue
        print(f"[{number}/{len(steps)}] {step.name}: {step.command}", file=sys.stderr, flush=True)
        start_s = time.monotonic()
        error = start(step.arguments)
        seconds = round(time.monotonic() - start_s, 1)
        outcomes.append(Outcome(step.name, FAILED if error else DONE, seconds, error))
        if error:
            print(f"error: {step.name}: {error}", file=sys.stderr, flush=True)
    return outcomes


def is_present(options: argparse.Namespace, name: str) -> bool:
    """Whether a result file of this machine holds the finished scenario as it would be run now."""
    if getattr(options, "url", None):  # another model may answer there by now
        return False
    machine = describe_machine()
    wanted = ScenarioRecord(options.kind, "", machine, make_config(options))
    hardware = hardware_slug(machine, wanted.config.get("device", ""))
    pattern = f"{slug(model_name(options))}_{hardware}_*.json"
    for path in sorted(options.output.glob(pattern)):
        found = read_results(path).scenarios.get(name)
        if found and _same(found, wanted):
            return True
    return False


def _same(found: ScenarioRecord, wanted: ScenarioRecord) -> bool:
    """The commit counts, changes beside it do not: results written before are such a change.

    A server or program that was missing may be there now; what an engine cannot do it never will.
    """
    missing = found.kind.startswith("serving") and found.details.get("not_run")
    return (
        (found.kind, found.config, found.commit) == (wanted.kind, wanted.config, wanted.commit)
        and bool(found.commit)
        and found.machine.get("cpu_flags") == wanted.machine.get("cpu_flags")
        and found.details.get("finished", True) is True
        and not missing
    )


def _only(steps: Sequence[Step], names: Sequence[str]) -> list[Step]:
    known = [step.name for step in steps]
    # In the file a scenario is called as it is without --quick.
    plain = [name.removesuffix(QUICK) for name in known]
    if unknown := [name for name in names if name not in (*known, *plain)]:
        raise ConfigError(
            f"--only {' '.join(unknown)}: no such scenario; known: {', '.join(known)}"
        )
    pairs = zip(steps, known, plain, strict=True)
    return [step for step, *both in pairs if not names or not set(names).isdisjoint(both)]


def _shown(step: Step) -> str:
    if step.remedy:
        return f"# {step.name}: left out, {step.remedy}"
    return f"python -m multitask_benchmarks {shlex.join(step.arguments)}"


def _finish(outcomes: Sequence[Outcome], output: Path) -> int:
    rows = [(one.scenario, one.status, one.seconds or None, one.message) for one in outcomes]
    console().print(make_table("Scenarios", ("scenario", "status", "seconds", ""), rows))
    failed = sum(one.status == FAILED for one in outcomes)
    line = {"folder": str(output), "failed": failed, "scenarios": [asdict(one) for one in outcomes]}
    print(json.dumps(line, ensure_ascii=False), flush=True)
    return 1 if failed else 0
