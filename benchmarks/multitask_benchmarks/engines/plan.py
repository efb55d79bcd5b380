"""What a run computes, from its options and the checkpoint: rows, points, the model's shape."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multitask_benchmarks.engines import points
from multitask_benchmarks.engines.flops import ModelShape, shape_of
from multitask_benchmarks.engines.points import GRID, Work
from multitask_benchmarks.engines.runners import Source
from multitask_benchmarks.texts import read_texts
from multitask_core import manifest
from multitask_core.artifact import KIND, TOKENIZER
from multitask_core.batching import Rows
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.text import TextEncoder
from multitask_train import checkpoint
from multitask_train.model import MultiTaskConfig

# Rows and pieces that an engine with shapes of its own is built for at least: runs on a grid and on
# real lengths then share one, which TensorRT takes a minute to build.
_BUILT_ROWS, _BUILT_PIECES = 128, 384


@dataclass(frozen=True)
class Plan:
    """works: points from small to large. mixes: batches of every kind, for comparing engines.

    absent: lengths that the model does not take. lengths: facts of real rows.
    """

    shape: ModelShape
    source: Source
    works: list[Work]
    mixes: list[Rows]
    absent: dict[str, str]
    lengths: dict[str, Any]


def make_plan(options: argparse.Namespace) -> Plan:
    """Read the checkpoint's manifest, config and tokenizer; its weights are each engine's business.

    Raises ArtifactError for a checkpoint that is damaged or not the artifact's own, ConfigError for
    lengths that the encoder does not take.
    """
    record = manifest.verify(options.checkpoint, checkpoint.KIND)
    if options.artifact:
        _check_parent(options, record.identity)
    config = MultiTaskConfig.from_pretrained(options.checkpoint)
    encoder = TextEncoder.from_file(options.checkpoint / TOKENIZER, config.windowing)
    shape = shape_of(config)
    works, absent, lengths = _works(options, encoder, shape)
    longest = max(len(row) for work in works for rows in work.batches for row in rows)
    source = Source(
        checkpoint=options.checkpoint,
        artifact=options.artifact,
        threads=options.threads,
        longest=max(longest, min(_BUILT_PIECES, shape.positions)),
        most_rows=max(_BUILT_ROWS, *(work.point.batch for work in works)),
        compile_shapes=options.compile,
    )
    return Plan(shape, source, works, points.mixes(encoder, longest), absent, lengths)


def _check_parent(options: argparse.Namespace, identity: str) -> None:
    exported = manifest.read(options.artifact, KIND)
    if exported.parent != identity and not options.allow_different:
        raise ArtifactError(
            f"{options.artifact} was not exported from {options.checkpoint}: give the checkpoint "
            "it came from, or --allow-different"
        )


def _works(
    options: argparse.Namespace, encoder: TextEncoder, shape: ModelShape
) -> tuple[list[Work], dict[str, str], dict[str, Any]]:
    if options.lengths != GRID:
        texts = read_texts(options.data, options.rows)
        rows = points.make_rows(encoder, texts, options.rows, options.lengths)
        facts = points.length_facts(rows, options.batch)
        return points.spread(rows, options.batch, options.lengths), {}, facts
    fine = _allowed(options.length, shape.positions)
    reason = f"the encoder has {shape.positions} positions"
    absent = {f"length {one}": reason for one in options.length if one not in fine}
    return points.grid(encoder, options.batch, fine), absent, {}


def _allowed(lengths: Sequence[int], positions: int) -> list[int]:
    fine = [length for length in lengths if length <= positions]
    if not fine:
        raise ConfigError(f"--length {min(lengths)}: the encoder takes at most {positions} pieces")
    return fine
