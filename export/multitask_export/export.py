"""A checkpoint → an artifact folder: graphs that passed the gates, tokenizer, labels, manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from multitask_core import artifact, manifest
from multitask_core.errors import ConfigError, DataError
from multitask_core.files import staged_folder, write_json
from multitask_core.labels import LabelSchema
from multitask_core.serving import Serving
from multitask_export import page
from multitask_export.make import Maker
from multitask_export.onnx_config import OPSET
from multitask_export.repository import SAMPLES
from multitask_export.variants import (
    BUDGETS,
    CPU_TARGETS,
    FP32,
    VARIANTS,
    check_names,
    check_serve,
    gated_engines,
)
from multitask_export.variants import choose as choose_variants
from multitask_train import checkpoint
from multitask_train.data import Example, read_examples

log = logging.getLogger(__name__)

TOOLS = (
    "numpy",
    "onnx",
    # Its GPU build goes by another name; OpenVINO may be missing.
    *(
        name
        for name in ("onnxruntime", "onnxruntime-gpu", "openvino")
        if any(metadata.distributions(name=name))
    ),
    "optimum",
    "optimum-onnx",
    "tokenizers",
    "torch",
    "transformers",
)


def export_artifact(
    source: Path,
    output: Path,
    *,
    variants: Sequence[str] = (),
    serve: Mapping[str, str] | None = None,
    data: str = "",
    allow: Mapping[str, str] | None = None,
    serving: Serving | None = None,
) -> Path:
    """Export a checkpoint and write its artifact.

    variants: names to write; one that a gate refuses ends the export. Without names all are tried,
    and one that is refused is left out with its reason in the report. FP32 always passes or ends
    the export. serve: target → the variant it serves; without it the best that passed. data:
    labelled text for the gate; without it the dev sentences beside the checkpoint. allow: variant →
    why it may fail a budget; the reason lands in the manifest. serving: settings of the text model.
    Raises ArtifactError, ConfigError, DataError, ParityError; the output is then as it was.
    """
    serve, allow = dict(serve or {}), dict(allow or {})
    _check(serve, allow, variants)
    manifest.check_target(output, artifact.KIND)
    model, encoder = checkpoint.load(source)
    examples = read_examples(data or source / checkpoint.SAMPLES)
    _check_annotation(examples, model.config.schema)
    required = {FP32, *serve.values(), *variants}
    with staged_folder(output) as stage:
        maker = Maker(stage, model, encoder, examples, allow)
        report = maker.run({FP32, *serve.values(), *(variants or VARIANTS)}, required)
        graphs = {name: VARIANTS[name].file for name in report if "refused" not in report[name]}
        shutil.copy2(source / artifact.LABELS, stage)
        shutil.copy2(source / artifact.TOKENIZER, stage)
        shutil.copy2(source / checkpoint.SAMPLES, stage / SAMPLES)
        parent = manifest.read(source, checkpoint.KIND)
        targets = choose_variants(report, serve)
        provenance = {"checkpoint": parent.identity, "training_data": parent.parent}
        config = {
            "graphs": graphs,
            "default": targets["embedded"],
            "targets": targets,
            "layouts": {name: VARIANTS[name].layout for name in graphs},
            "engines": gated_engines(report),
            "serving": (serving or Serving()).model_dump(),
            "windowing": asdict(encoder.windowing),
            "opset": OPSET,
            "gate_data": _digest(examples),
            "budgets": {name: asdict(budget) for name, budget in BUDGETS.items()},
            "allowed": allow,
            **provenance,
        }
        write_json(stage / page.REPORT, {**provenance, "gate_data": config["gate_data"], **report})
        page.write(stage / page.PAGE, report, targets, provenance)
        manifest.write(
            stage,
            artifact.KIND,
            files=[path for path in stage.iterdir() if path.is_file()],
            parent=parent.identity,
            config=config,
            tools=TOOLS,
            report={name: _without_histogram(figures) for name, figures in report.items()},
        )
    for name in sorted(name for name in allow if "allowed" not in report.get(name, {})):
        log.warning("--allow %s was not needed: it passed, was refused otherwise or not made", name)
    for target, name in targets.items():
        log.info("%s serves %s", target, name)
    log.info("artifact: %s; report: %s", output, output / page.PAGE)
    return output


def parse_serve(choices: Sequence[str]) -> dict[str, str]:
    """`[TARGET=]NAME` choices → target → variant; a bare name is for the CPU targets."""
    chosen: dict[str, str] = {}
    for choice in choices:
        target, equals, name = choice.rpartition("=")
        chosen.update(dict.fromkeys([target] if equals else CPU_TARGETS, name))
    return chosen


def parse_allow(choices: Sequence[str]) -> dict[str, str]:
    """`VARIANT=REASON` choices; raises ConfigError for one without a reason."""
    pairs = [choice.partition("=")[::2] for choice in choices]
    for name, reason in pairs:
        if not reason.strip():
            raise ConfigError(
                f"--allow {name}: give a reason, as in --allow {name}='measured on …'"
            )
    return dict(pairs)


def _check(serve: Mapping[str, str], allow: Mapping[str, str], variants: Sequence[str]) -> None:
    check_names({*serve.values(), *allow, *variants})
    check_serve(serve)
    if FP32 in allow:
        raise ConfigError(f"--allow {FP32}: it is what all others are made from and must pass")


def _check_annotation(examples: Sequence[Example], schema: LabelSchema) -> None:
    """Raise DataError for annotation that the model does not know; say what cannot be judged."""
    labels = {one.label for one in examples if one.label} - set(schema.classes)
    types = {span.type for one in examples for span in one.entities or ()} - set(
        schema.entity_types
    )
    for what, foreign in (("labels", labels), ("entity types", types)):
        if foreign:
            raise DataError(
                f"the validation sentences carry {what} that the checkpoint does not know: "
                f"{', '.join(sorted(foreign))}; give sentences of its own task with --data"
            )
    if not any(one.label for one in examples):
        log.warning("no validation sentence carries a label: the loss of accuracy is not judged")
    if all(one.entities is None for one in examples):
        log.warning("no validation sentence marks entities: the loss of entity F1 is not judged")


def _without_histogram(figures: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in figures.items() if name != "histogram"}
    if "engines" in kept:
        kept["engines"] = {name: _without_histogram(one) for name, one in kept["engines"].items()}
    return kept


def _digest(examples: Sequence[Example]) -> str:
    """SHA-256 of the sentences and annotations that the gate saw."""
    canonical = json.dumps([asdict(example) for example in examples], ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
