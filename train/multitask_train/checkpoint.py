"""A checkpoint folder: Hugging Face layout plus labels, metrics, card and manifest."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.optim.swa_utils import AveragedModel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from multitask_core import manifest
from multitask_core.artifact import LABELS, TOKENIZER
from multitask_core.batching import Float32, Int64, RowLogits, Rows, pad_rows, unpad_rows
from multitask_core.errors import ArtifactError, ConfigError, MultiTaskError
from multitask_core.files import staged_folder, write_json, write_text
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_core.signature import PADDED
from multitask_core.text import TextEncoder, Windowing
from multitask_train.data import Example
from multitask_train.data.examples import write_jsonl
from multitask_train.model import MultiTaskModel

KIND = "checkpoint"
LOGS = "logs"
# Dev sentences that travel with the checkpoint: the export compares every graph on them.
SAMPLES = "samples.jsonl"
SAMPLE_SIZE = 256
# Of a model, as its attributes.
PARTS = ("encoder", "sentence_head", "token_head")
TOOLS = ("accelerate", "safetensors", "tokenizers", "torch", "transformers")


class TorchEncoder:
    """The model as the pipeline's encoder: rows of piece ids in, FP32 logits of each row out.

    Runs in evaluation mode and leaves the model in the mode it found.
    """

    layout = PADDED

    def __init__(self, model: MultiTaskModel) -> None:
        self._model = model

    def __call__(self, rows: Rows) -> list[RowLogits]:
        """Run one batch of rows, padded to the longest."""
        return unpad_rows(rows, *self.run(*pad_rows(rows)))

    def run(self, *inputs: Int64) -> tuple[Float32, Float32]:
        """Run one padded batch: input_ids and attention_mask [B, L]."""
        device = next(self._model.parameters()).device
        training = self._model.training
        self._model.train(False)
        try:
            with torch.inference_mode():
                output = self._model(*(torch.from_numpy(one).to(device) for one in inputs))
        finally:
            self._model.train(training)
        logits = (output.class_logits, output.token_logits)
        class_logits, token_logits = (one.float().cpu().numpy() for one in logits)
        return class_logits, token_logits


def load_tokenizer(encoder: str) -> PreTrainedTokenizerFast:
    """The encoder's fast tokenizer; raises ConfigError where it has none."""
    with _loading(encoder):
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(encoder, use_fast=True)
    if not tokenizer.is_fast:
        raise ConfigError(f"{encoder!r} has no fast tokenizer; exact offsets need one")
    return tokenizer


def new_model(
    encoder: str, schema: LabelSchema, *, dropout: float, windowing: Windowing
) -> MultiTaskModel:
    """Fresh heads on a pretrained encoder; raises ConfigError where it cannot be loaded."""
    with _loading(encoder):
        return MultiTaskModel.from_encoder(encoder, schema, dropout=dropout, windowing=windowing)


@contextmanager
def _loading(encoder: str) -> Iterator[None]:
    try:
        yield
    except MultiTaskError:
        raise
    except Exception as error:  # transformers and safetensors raise unrelated types
        raise ConfigError(
            f"cannot load the encoder {encoder!r}: {error}\nUse a folder in Hugging Face layout, a "
            "hub id that this machine can reach, or 'minilm', which needs no hub"
        ) from error


def text_encoder(tokenizer: PreTrainedTokenizerFast, model: MultiTaskModel) -> TextEncoder:
    """The toolkit's own view of a tokenizer, with the model's windowing."""
    return TextEncoder(raw_tokenizer(tokenizer), model.config.windowing)


def raw_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the tokenizer without transformers around it."""
    raw: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    return raw


def save(
    folder: Path,
    model: MultiTaskModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    card: str,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    samples: Sequence[Example],
    data: str,
    extras: Sequence[Path] = (),
) -> None:
    """Write a checkpoint in one rename; the TensorBoard log that stands in the folder stays.

    samples: sentences for the export's comparison, of which SAMPLE_SIZE are kept. data: hash of the
    training data, which becomes the manifest's parent. extras: files that are copied along.
    """
    with staged_folder(folder) as stage:
        model.save_pretrained(stage)
        tokenizer.save_pretrained(stage)
        model.config.schema.save(stage / LABELS)
        write_json(stage / "metrics.json", metrics)
        write_jsonl(stage / SAMPLES, _spread(samples, SAMPLE_SIZE))
        write_text(stage / "README.md", card)
        for path in extras:
            shutil.copy2(path, stage / path.name)
        for path in stage.glob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes for the owner alone; a server is another user
        files = [path for path in stage.iterdir() if path.is_file()]
        manifest.write(
            stage, KIND, files=files, parent=data, config=config, tools=TOOLS, report=metrics
        )
        if (folder / LOGS).is_dir():
            shutil.copytree(folder / LOGS, stage / LOGS)


def _spread(samples: Sequence[Example], count: int) -> list[Example]:
    """At most `count` samples from the whole length of a list, which may be sorted by class."""
    count = min(count, len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]


def load(folder: Path) -> tuple[MultiTaskModel, TextEncoder]:
    """Read a checkpoint after checking it against its manifest; raises ArtifactError."""
    manifest.verify(folder, KIND)
    try:
        model = MultiTaskModel.from_pretrained(folder)
        model.eval()
        return model, TextEncoder.from_file(folder / TOKENIZER, model.config.windowing)
    except MultiTaskError:
        raise
    except Exception as error:  # transformers and safetensors raise unrelated types
        raise ArtifactError(f"cannot load the checkpoint {folder}: {error}") from error


def load_pipeline(folder: Path) -> Pipeline:
    """A checkpoint as an in-process pipeline around the torch model."""
    model, encoder = load(folder)
    return pipeline(model, encoder)


def pipeline(model: MultiTaskModel, encoder: TextEncoder) -> Pipeline:
    """A model in memory as an in-process pipeline that takes texts of any length, as readers do."""
    return Pipeline(
        encoder,
        TorchEncoder(model),
        model.config.schema,
        max_chars=sys.maxsize,
        max_pieces=sys.maxsize,
    )


def copy_weights(folders: Sequence[Path], model: MultiTaskModel) -> list[str]:
    """Take the mean of checkpoints' encoders into `model`, and of each head whose labels are its.

    Heads count as they are calibrated: their logits then mean the same. Returns those of PARTS that
    were taken. Raises ArtifactError where the encoders differ in shape,
    ConfigError where one checkpoint lacks what another gives.
    """
    means: dict[str, AveragedModel] = {}
    for folder in folders:
        source, _ = load(folder)
        taken = _same_parts(source, model)
        if means and taken != list(means):
            raise ConfigError(
                f"model.start_from {folder} gives {', '.join(taken)}, {folders[0]} "
                f"{', '.join(means)}: only checkpoints of the same labels have a mean"
            )
        for name in taken:
            part = getattr(model, name)
            try:
                part.load_state_dict(getattr(source, name).state_dict())
            except RuntimeError as error:
                raise ArtifactError(
                    f"{folder} holds another {name} than model.encoder: {error}; name the encoder "
                    "that the checkpoint was trained from, and model.keep_case as it was there"
                ) from error
            if name not in means:
                means[name] = AveragedModel(part)
            means[name].update_parameters(part)
    for name, mean in means.items():
        getattr(model, name).load_state_dict(mean.module.state_dict())
    return list(means)


def _same_parts(source: MultiTaskModel, model: MultiTaskModel) -> list[str]:
    theirs, ours = source.config.schema, model.config.schema
    same = (True, theirs.classes == ours.classes, theirs.entity_types == ours.entity_types)
    return [name for name, alike in zip(PARTS, same, strict=True) if alike]
