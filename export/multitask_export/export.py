"""A checkpoint → an artifact folder: graphs that passed the gate, tokenizer, labels, manifest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from multitask_core import artifact, manifest
from multitask_core.errors import ConfigError
from multitask_core.files import staged_folder, write_json
from multitask_core.pipeline import Pipeline
from multitask_core.session import OnnxEncoder
from multitask_core.text import TextEncoder
from multitask_export import parity
from multitask_export.onnx_config import OPSET, export_graph
from multitask_export.variants import EXACT, FP32, FP32_FILE, FUSED, INT8, VARIANTS, op_counts
from multitask_train import checkpoint
from multitask_train.data import read_examples
from multitask_train.model import MultiTaskModel

log = logging.getLogger(__name__)

TOOLS = ("onnx", "onnxruntime", "optimum", "optimum-onnx", "tokenizers", "torch", "transformers")
DEFAULT_VARIANTS = (FP32, FUSED, INT8)


def export_artifact(
    source: Path,
    output: Path,
    *,
    variants: Sequence[str] = DEFAULT_VARIANTS,
    default: str = "",
    data: str = "",
) -> Path:
    """Export a checkpoint and write its artifact; nothing is written when a gate refuses.

    variants: names to write; FP32 always is. default: the variant that is served, by default the
    first exact one for ONNX Runtime. data: labelled text for the gate, by default the dev sentences
    that training put beside the checkpoint. Raises ArtifactError, ConfigError, ParityError.
    """
    default = default or (FUSED if FUSED in variants else FP32)
    names = _ordered({FP32, default, *variants})
    model, encoder = checkpoint.load(source)
    texts = _texts(source, data)
    with staged_folder(output) as stage:
        report = _write_graphs(stage, model, encoder, names, texts)
        shutil.copy2(source / artifact.LABELS, stage)
        shutil.copy2(source / artifact.TOKENIZER, stage)
        write_json(stage / "parity.json", report)
        windowing = encoder.windowing
        manifest.write(
            stage,
            artifact.KIND,
            files=[path for path in stage.iterdir() if path.is_file()],
            parent=manifest.read(source, checkpoint.KIND).identity,
            config={
                "graphs": {name: _file(name) for name in names},
                "default": default,
                "windowing": {"max_length": windowing.max_length, "stride": windowing.stride},
                "opset": OPSET,
            },
            tools=TOOLS,
            report=report,
        )
    log.info("artifact: %s", output)
    return output


def _ordered(names: set[str]) -> list[str]:
    """Requested variants and what they are made from, sources first."""
    known = [FP32, *VARIANTS]
    if unknown := sorted(names - set(known)):
        raise ConfigError(f"unknown variant {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in names]


def _file(name: str) -> str:
    return FP32_FILE if name == FP32 else VARIANTS[name].file


def _texts(source: Path, data: str) -> list[str]:
    examples = read_examples(data or source / checkpoint.SAMPLES)
    return [example.text for example in examples]


def _write_graphs(
    stage: Path, model: MultiTaskModel, encoder: TextEncoder, names: list[str], texts: list[str]
) -> dict[str, Any]:
    """Make and gate each variant, sources before what is made from them."""
    schema = model.config.schema
    reference = parity.Reference(Pipeline(encoder, checkpoint.TorchEncoder(model), schema), texts)
    report: dict[str, Any] = {}
    for name in (bar := tqdm(_with_sources(names), unit="variant")):
        bar.set_description(f"export {name}")
        path = stage / _file(name)
        if name == FP32:
            export_graph(model, path)
            budget = EXACT
        else:
            variant = VARIANTS[name]
            variant.make(stage / _file(variant.source), path, model.config.encoder_config)
            budget = variant.budget
        bar.set_description(f"check {name}")
        parity.check_names(path, schema)
        candidate = Pipeline(encoder, OnnxEncoder(path, schema), schema)
        measured = reference.measure(candidate)
        parity.check_budget(name, measured, budget)
        report[name] = {
            **measured.to_dict(),
            "bytes": path.stat().st_size,
            "operators": op_counts(path),
        }
        tqdm.write(_line(name, measured))
    for name in set(report) - set(names):
        (stage / _file(name)).unlink()
    return {name: report[name] for name in names}


def _with_sources(names: list[str]) -> list[str]:
    needed = set(names)
    for name in reversed([*VARIANTS]):
        if name in needed:
            needed.add(VARIANTS[name].source)
    return _ordered(needed)


def _line(name: str, measured: parity.Parity) -> str:
    largest = max(measured.class_difference, measured.token_difference)
    return (
        f"{name}: logits within {largest:.1e}; of {measured.sentences} sentences "
        f"{measured.labels_changed} change their label, {measured.entities_changed} their entities"
    )
