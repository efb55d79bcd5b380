"""Build a plan, see what was built, and compare its answers: the stages that need the GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multitask_core.manifest import sha256
from multitask_core.signature import ATTENTION_MASK, INPUT_IDS
from multitask_export.engine.agreement import (
    Agreement,
    Answer,
    Batch,
    check_agreement,
    make_batches,
    read_outputs,
    reference,
)
from multitask_export.engine.layers import Precision, check_precision, read_layers
from multitask_export.engine.machine import Gpu, TensorRTVersion
from multitask_export.engine.source import VARIANT, Source
from multitask_export.engine.trtexec import Recipe, execute, run_command

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workshop:
    """trtexec on one GPU, a folder for what it writes, and the log of all its runs."""

    trtexec: Path
    version: TensorRTVersion
    gpu: Gpu
    folder: Path
    log: Path

    @property
    def plan(self) -> Path:
        """Where the plan is built."""
        return self.folder / self.gpu.plan_name


@dataclass(frozen=True)
class Made:
    """How the plan was built and what was measured on it."""

    command: list[str]
    precision: Precision
    agreement: Agreement


def make_plan(shop: Workshop, source: Source, recipe: Recipe, texts: Sequence[str]) -> Made:
    """Build the plan and prove it; raises ArtifactError, ParityError."""
    command = _build(shop, source, recipe)
    batches = make_batches(source.encoder, texts, recipe.typical.rows, recipe.largest.rows)
    shown = shop.folder / "run.layers.json"
    found = [_run(shop, 0, batches[0], shown)]
    layers = read_layers(shown, shop.folder / "build.layers.json")
    precision = check_precision(layers, source.kept_in_fp32)
    found += [_run(shop, number, batch) for number, batch in enumerate(batches[1:], 1)]
    answer = reference(source.reference)
    agreement = check_agreement(batches, [answer(batch) for batch in batches], found)
    log.info(
        "logits within %.1e of the FP32 graph on %d rows; %d products in FP16, %d kept in FP32",
        max(agreement.class_difference, agreement.token_difference),
        agreement.rows,
        precision.half,
        len(precision.kept_in_fp32),
    )
    return Made(command, precision, agreement)


def record(shop: Workshop, source: Source, recipe: Recipe, made: Made) -> dict[str, Any]:
    """What engine.json says of one plan."""
    return {
        "plan": shop.plan.name,
        "sha256": sha256(shop.plan),
        "size": shop.plan.stat().st_size,
        "variant": VARIANT,
        "graph": source.graph.name,
        "graph_sha256": sha256(source.graph),
        "artifact": source.artifact.manifest.identity,
        "tensorrt": str(shop.version),
        "gpu": shop.gpu.name,
        "compute_capability": shop.gpu.capability,
        "shapes": {"opt": str(recipe.typical), "max": str(recipe.largest)},
        "command": [part.replace(f"{shop.folder}/", "") for part in made.command],
        "precision": asdict(made.precision),
        "parity": asdict(made.agreement),
    }


def _build(shop: Workshop, source: Source, recipe: Recipe) -> list[str]:
    command = recipe.command(
        shop.trtexec,
        source.graph,
        shop.plan,
        shop.folder / "build.layers.json",
        major=shop.version.major,
    )
    log.info("building %s takes minutes; log: %s", shop.plan.name, shop.log)
    execute(command, shop.log, f"building {shop.plan.name}", shop.plan)
    return command


def _run(shop: Workshop, number: int, batch: Batch, layers: Path | None = None) -> Answer:
    inputs = {}
    for name, values in ((INPUT_IDS, batch.input_ids), (ATTENTION_MASK, batch.attention_mask)):
        inputs[name] = shop.folder / f"{number}.{name}.bin"
        values.tofile(inputs[name])
    output = shop.folder / f"{number}.json"
    command = run_command(shop.trtexec, shop.plan, batch.shape, inputs, output, layers)
    execute(command, shop.log, f"running a {batch.shape} batch", output)
    return read_outputs(output)
