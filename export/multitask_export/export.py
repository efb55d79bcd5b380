"""A checkpoint → an artifact folder: graphs that passed the gate, tokenizer, labels, manifest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from multitask_core import artifact, manifest
from multitask_core.errors import ConfigError, ParityError
from multitask_core.files import staged_folder, write_json
from multitask_core.pipeline import Pipeline
from multitask_core.session import OnnxEncoder
from multitask_core.text import TextEncoder
from multitask_export import parity
from multitask_export.onnx_config import OPSET, export_graph
from multitask_export.variants import EXACT, FP32, FP32_FILE, FUSED, VARIANTS, Budget, op_counts
from multitask_train import checkpoint
from multitask_train.data import read_examples
from multitask_train.model import MultiTaskModel

log = logging.getLogger(__name__)

TOOLS = ("onnx", "onnxruntime", "optimum", "optimum-onnx", "tokenizers", "torch", "transformers")


def export_artifact(
    source: Path,
    output: Path,
    *,
    variants: Sequence[str] = (),
    default: str = "",
    data: str = "",
) -> Path:
    """Export a checkpoint and write its artifact.

    variants: names to write; one that a gate refuses ends the export. Without names all are tried,
    and one that is refused is left out with its reason in the report. FP32 always passes or ends
    the export. default: the variant that is served; without it the fused FP32 where that passed.
    data: labelled text for the gate; without it the dev sentences beside the checkpoint.
    Raises ArtifactError, ConfigError, ParityError; the output is then as it was.
    """
    _check_names({default, *variants} - {""})
    manifest.check_target(output, artifact.KIND)
    model, encoder = checkpoint.load(source)
    examples = read_examples(data or source / checkpoint.SAMPLES)
    wanted = {FP32, default, *(variants or VARIANTS)} - {""}
    required = {FP32, default, *variants}
    with staged_folder(output) as stage:
        exporter = _Exporter(stage, model, encoder, [example.text for example in examples])
        report = exporter.run(wanted, required)
        graphs = {name: file_name(name) for name in report if "refused" not in report[name]}
        shutil.copy2(source / artifact.LABELS, stage)
        shutil.copy2(source / artifact.TOKENIZER, stage)
        write_json(stage / "parity.json", report)
        manifest.write(
            stage,
            artifact.KIND,
            files=[path for path in stage.iterdir() if path.is_file()],
            parent=manifest.read(source, checkpoint.KIND).identity,
            config={
                "graphs": graphs,
                "default": default or (FUSED if FUSED in graphs else FP32),
                "windowing": asdict(encoder.windowing),
                "opset": OPSET,
            },
            tools=TOOLS,
            report=report,
        )
    log.info("artifact: %s", output)
    return output


def file_name(variant: str) -> str:
    """The graph file of a variant inside an artifact."""
    return FP32_FILE if variant == FP32 else VARIANTS[variant].file


def _check_names(names: set[str]) -> None:
    known = [FP32, *VARIANTS]
    if unknown := sorted(names - set(known)):
        raise ConfigError(f"unknown variant {', '.join(unknown)}; there are {', '.join(known)}")


class _Exporter:
    """Makes and gates variants in one folder; a source is made before what is made from it."""

    def __init__(
        self, stage: Path, model: MultiTaskModel, encoder: TextEncoder, texts: list[str]
    ) -> None:
        self._stage, self._model, self._encoder = stage, model, encoder
        pipeline = Pipeline(encoder, checkpoint.TorchEncoder(model), model.config.schema)
        self._reference = parity.Reference(pipeline, texts)
        self._report: dict[str, Any] = {}

    def run(self, wanted: set[str], required: set[str]) -> dict[str, Any]:
        """Return what was measured on each wanted variant, or why it was refused."""
        needed = _with_sources(wanted)
        for name in (bar := tqdm(needed, unit="variant")):
            bar.set_description(name)
            try:
                self._report[name] = self._make(name)
            except ParityError as error:
                if name in _with_sources(required - {""}):
                    raise
                (self._stage / file_name(name)).unlink(missing_ok=True)
                self._report[name] = {"refused": str(error)}
                log.warning("left out: %s", error)
        for name in set(self._report) - wanted:
            (self._stage / file_name(name)).unlink(missing_ok=True)
        return {name: self._report[name] for name in needed if name in wanted}

    def _make(self, name: str) -> dict[str, Any]:
        """Write one variant by the first recipe that passes the gate."""
        if name == FP32:
            export_graph(self._model, self._stage / FP32_FILE)
            return self._gate(name, EXACT)
        variant = VARIANTS[name]
        source = self._stage / file_name(variant.source)
        if not source.exists():  # refused, as for an encoder that the optimizer does not know
            source = self._stage / FP32_FILE
        refusals = []
        for recipe, make in variant.recipes.items():
            try:
                make(source, self._stage / variant.file, self._model.config.encoder_config)
                return {"recipe": recipe, **self._gate(name, variant.budget)}
            except ParityError as error:
                refusals.append(f"{error} ({recipe})" if len(variant.recipes) > 1 else str(error))
        raise ParityError("; ".join(refusals))

    def _gate(self, name: str, budget: Budget) -> dict[str, Any]:
        path = self._stage / file_name(name)
        schema = self._model.config.schema
        parity.check_names(path, schema)
        candidate = Pipeline(self._encoder, OnnxEncoder(path, schema), schema)
        measured = self._reference.measure(candidate)
        parity.check_budget(name, measured, budget)
        tqdm.write(_line(name, measured))
        size = path.stat().st_size
        return {**measured.to_dict(), "bytes": size, "operators": op_counts(path)}


def _with_sources(names: set[str]) -> list[str]:
    """Variants and what they are made from, sources first."""
    needed = set(names)
    for name in reversed([*VARIANTS]):
        if name in needed:
            needed.add(VARIANTS[name].source)
    return [name for name in (FP32, *VARIANTS) if name in needed]


def _line(name: str, measured: parity.Parity) -> str:
    largest = max(measured.class_difference, measured.token_difference)
    return (
        f"{name}: logits within {largest:.1e}; of {measured.sentences} sentences "
        f"{measured.labels_changed} change their label, {measured.entities_changed} their entities"
    )
