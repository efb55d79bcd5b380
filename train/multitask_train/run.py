"""What a run of `fit` begins with: its settings checked, its corpora read, its model loaded."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import PreTrainedTokenizerFast

from multitask_core import manifest
from multitask_core.errors import ConfigError
from multitask_core.files import recover_folder, remove_stages
from multitask_core.manifest import Manifest
from multitask_core.text import TextEncoder, Windowing
from multitask_train import backbones, checkpoint
from multitask_train.corpora import Corpora, read_corpora
from multitask_train.letter_case import keep_case
from multitask_train.metrics import check_best_metric, measured_tasks
from multitask_train.model import MultiTaskModel
from multitask_train.resume import FOLDER, ResumeFolder
from multitask_train.settings import FitSettings
from multitask_train.strategies import frozen_in_heads
from multitask_train.teachers import Teachers, load_teachers

log = logging.getLogger(__name__)

# Balancers that part the tasks' gradients in the encoder.
BY_GRADIENTS = ("pcgrad", "upgrad")


@dataclass
class Run:
    """What all stages of a run share; `best` is the best epoch so far, `waited` epochs since.

    seconds: of training and validating; teacher_seconds: of asking teachers before it.
    """

    settings: FitSettings
    accelerator: Accelerator
    corpora: Corpora
    model: MultiTaskModel
    tokenizer: PreTrainedTokenizerFast
    encoder: TextEncoder
    teachers: Teachers
    starts: list[Manifest]
    folder: ResumeFolder
    best: dict[str, Any] = field(default_factory=dict)
    waited: int = 0
    seconds: float = 0.0
    teacher_seconds: float = 0.0
    tokens: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process validates and writes."""
        return bool(self.accelerator.is_main_process)


def check(settings: FitSettings, accelerator: Accelerator) -> None:
    """Raise ConfigError for settings that do not go together, and for an output that is taken."""
    balancer, precision = settings.loss.balancer, settings.optim.precision
    if precision == "fp16" and accelerator.scaler is None:  # accelerate trains in FP32 then
        raise ConfigError(
            f"optim.precision fp16 needs a GPU, and this runs on {accelerator.device}; use bf16 "
            "or no"
        )
    if precision == "fp16" and balancer in BY_GRADIENTS:
        raise ConfigError(
            f"loss.balancer {balancer} reads gradients, which optim.precision fp16 scales; use "
            "bf16 or no"
        )
    if not settings.optim.epochs and not settings.model.start_from:
        raise ConfigError(
            "optim.epochs 0 writes what model.start_from names without training it, and nothing "
            "is named there; name a checkpoint, or give more epochs"
        )
    if not settings.optim.epochs and settings.loss.teachers:
        raise ConfigError(
            "optim.epochs 0 trains nothing, so that no teacher is imitated; leave loss.ner_teacher "
            "and loss.classification_teacher out, or give more epochs"
        )
    output = settings.run.output
    if accelerator.is_main_process:
        recover_folder(output)
        remove_stages(output.parent, output.name)
        remove_stages(output / FOLDER)
    accelerator.wait_for_everyone()
    manifest.check_target(output, checkpoint.KIND, [checkpoint.LOGS, FOLDER])
    if (output / manifest.NAME).exists() and not settings.run.overwrite:
        raise ConfigError(
            f"{output} already holds a checkpoint; name another --run.output or give "
            "--run.overwrite true"
        )


def check_writable(output: Path) -> None:
    """Before anything is trained: a run writes into its folder, and renames it from beside."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for folder in (output.parent, output):
            if folder.exists():
                tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"run.output {output}: a run writes in it and beside it, and cannot: {error}; name "
            "another --run.output"
        ) from error


def set_up(settings: FitSettings, accelerator: Accelerator) -> Run:
    """Read and load all that a run needs; raises ConfigError, DataError, ArtifactError."""
    corpora = read_corpora(settings)
    schema = corpora.schema()
    check_best_metric(settings.run.best_metric, measured_tasks(corpora.dev, settings.data.tasks))
    encoder = backbones.resolve(settings.model.encoder)
    tokenizer = checkpoint.load_tokenizer(encoder)
    windowing = Windowing(settings.model.max_length, settings.model.stride)
    model = checkpoint.new_model(
        encoder, schema, dropout=settings.model.dropout, windowing=windowing
    )
    if settings.model.keep_case:
        keep_case(model, tokenizer)
    _check_encoder(settings, model)
    starts = _start_from(settings, model)
    # Weights are the same in all processes, dropout is not.
    set_seed(settings.run.seed, device_specific=True)
    log.info("%d classes, %d entity types", len(schema.classes), len(schema.entity_types))
    text_encoder = checkpoint.text_encoder(tokenizer, model)
    teachers = load_teachers(settings, schema, accelerator.device)
    content = {f"data.{name}": one for name, one in corpora.hashes.items()}
    content |= {f"model.start_from {at}": one.identity for at, one in enumerate(starts, 1)}
    content |= {f"loss.{task}_teacher": one for task, one in teachers.identities.items()}
    folder = ResumeFolder(settings, content, accelerator.num_processes)
    return Run(
        settings, accelerator, corpora, model, tokenizer, text_encoder, teachers, starts, folder
    )


def _start_from(settings: FitSettings, model: MultiTaskModel) -> list[Manifest]:
    """Copy what model.start_from holds; say which weights begin, or stay, at random."""
    names = settings.model.start_from
    starts = [manifest.read(Path(name), checkpoint.KIND) for name in names]
    trained = {one.config.get("data", {}).get("tasks", "both") for one in starts}
    if len(trained) > 1:
        raise ConfigError(
            f"model.start_from {', '.join(names)}: they were trained with data.tasks "
            f"{', '.join(sorted(trained))}; a mean with a head that learned nothing is of no use: "
            "name checkpoints of the same tasks"
        )
    taken = checkpoint.copy_weights([Path(name) for name in names], model)
    if taken:
        log.info(
            "from %s%s: %s",
            *("the mean of " if len(names) > 1 else "", ", ".join(names), ", ".join(taken)),
        )
    begun = [name for name in checkpoint.PARTS if taken and name not in taken]
    if begun and not settings.optim.epochs:
        raise ConfigError(
            f"optim.epochs 0 trains nothing, and model.start_from {', '.join(names)} has other "
            f"labels than data.train, so that {', '.join(begun)} would stay at random; name the "
            "data that it was trained on, or give more epochs"
        )
    if begun:
        log.info("%s: other labels than there, so from random weights", ", ".join(begun))
    frozen = frozen_in_heads(model, settings.optim)
    if random := [name for name in frozen if name.partition(".")[0] not in taken]:
        log.warning(
            "optim.strategy %s keeps the random weights of %s; give model.start_from a checkpoint "
            "whose head of the same labels is trained",
            *(settings.optim.strategy, ", ".join(random)),
        )
    return starts


def _check_encoder(settings: FitSettings, model: MultiTaskModel) -> None:
    """Run one full window: what the config calls its positions may include some for padding."""
    length = model.config.window_length
    ids = torch.full((1, length), 5)
    try:
        with torch.inference_mode():
            model(ids, torch.ones_like(ids))
    except (IndexError, RuntimeError) as error:
        limit = getattr(model.encoder.config, "max_position_embeddings", "fewer")
        raise ConfigError(
            f"model.max_length {length}: the encoder cannot read so many pieces (it has {limit} "
            f"positions, some of which may be padding's): {error}"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"model.encoder {settings.model.encoder} cannot read a text by itself: {error}; name "
            "an encoder of BERT's kind"
        ) from error
