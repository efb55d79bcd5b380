"""The command line: options in, the stages one after the other."""

from __future__ import annotations

import argparse
import logging
import shlex
import tempfile
from pathlib import Path

from multitask_core.batching import MAX_ROWS
from multitask_core.errors import ConfigError
from multitask_core.signature import ATTENTION_MASK, INPUT_IDS, TENSOR_MODEL
from multitask_export.engine.agreement import read_texts
from multitask_export.engine.entry import TARGET, Entry, served_version
from multitask_export.engine.machine import (
    TRTEXEC,
    Gpu,
    find_gpu,
    find_trtexec,
    tensorrt_version,
)
from multitask_export.engine.plan import Workshop, make_plan, record
from multitask_export.engine.source import Source, open_source
from multitask_export.engine.trtexec import Recipe, Shape, run_command

log = logging.getLogger(__name__)

_LEVELS = range(6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command `engine`."""
    add = parser.add_argument
    add("--artifact", type=Path, required=True, help="folder written by the export")
    add("--repository", type=Path, required=True, help="Triton model repository that holds it")
    add("--version", type=int, default=0,
        help="version folder in the repository [the one that its configs serve]")  # fmt: skip
    add("--trtexec", default="", help=f"the program [the one on PATH, or {TRTEXEC}]")
    add("--max-batch", type=int, default=MAX_ROWS, help="most rows in a batch [%(default)s]")
    add("--opt-batch", type=int, default=8, help="rows to optimise for [%(default)s]")
    add("--opt-length", type=int, default=64, help="pieces a row to optimise for [%(default)s]")
    add("--timing-cache", type=Path, help="file of kernel timings, read and extended [none]")
    add("--builder-level", type=int, default=3, help="0 (quick build) to 5 [%(default)s]")
    add("--data", type=Path, help="sentences to compare, one a line or JSONL [built-in ones]")
    add("--dry-run", action="store_true", help="print the commands; needs no TensorRT and no GPU")


def run(options: argparse.Namespace) -> int:
    """Build, check and publish a plan; returns the exit status.

    Raises ArtifactError, ConfigError, ParityError; the repository's plans are then as they were.
    """
    source = open_source(options.artifact)
    recipe = _recipe(options, source.window)
    number = options.version or served_version(options.repository)
    if options.dry_run:
        _print_commands(options, source, recipe, options.repository / TENSOR_MODEL / str(number))
        return 0
    texts = read_texts(options.data)
    entry = Entry.open(options.repository, number, source.artifact)
    trtexec = find_trtexec(options.trtexec)
    version, gpu = tensorrt_version(trtexec), find_gpu()
    log.info("TensorRT %s on %s, compute capability %s", version, gpu.name, gpu.capability)
    target = entry.version / gpu.plan_name
    if recipe.timing_cache:
        recipe.timing_cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="engine-") as work:
        shop = Workshop(trtexec, version, gpu, Path(work), target.with_suffix(".log"))
        made = make_plan(shop, source, recipe, texts)
        facts = record(shop, source, recipe, made)
        entry.publish(shop.plan, gpu.capability, facts, source.artifact.schema)
    log.info("plan: %s; serve it with --model-config-name=%s", target, TARGET)
    return 0


def _recipe(options: argparse.Namespace, window: int) -> Recipe:
    """The checked options; raises ConfigError."""
    if options.max_batch < MAX_ROWS:
        raise ConfigError(
            f"--max-batch is {options.max_batch}; the text model sends up to {MAX_ROWS} rows at a "
            "time"
        )
    for name, value, largest in (
        ("--opt-batch", options.opt_batch, options.max_batch),
        ("--opt-length", options.opt_length, window),
    ):
        if not 1 <= value <= largest:
            raise ConfigError(f"{name} is {value}; this artifact allows 1 to {largest}")
    if options.builder_level not in _LEVELS:
        raise ConfigError(f"--builder-level is {options.builder_level}; TensorRT knows 0 to 5")
    return Recipe(
        Shape(options.opt_batch, options.opt_length),
        Shape(options.max_batch, window),
        options.builder_level,
        options.timing_cache,
    )


def _print_commands(
    options: argparse.Namespace, source: Source, recipe: Recipe, folder: Path
) -> None:
    """The build and one run, for an unknown GPU and for TensorRT 10, whose flags 11 takes too."""
    trtexec = Path(options.trtexec or TRTEXEC)
    plan = folder / Gpu("", "XX").plan_name
    inputs = {name: Path(f"{name}.bin") for name in (INPUT_IDS, ATTENTION_MASK)}
    layers = Path("layers.json")
    for command in (
        recipe.command(trtexec, source.graph, plan, layers, major=10),
        run_command(trtexec, plan, recipe.typical, inputs, Path("outputs.json"), layers),
    ):
        print(shlex.join(command))
