"""Measure a checkpoint on labelled text: `python -m multitask_train evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from multitask_core import manifest
from multitask_core.pipeline import Logits, Pipeline
from multitask_core.prediction import Prediction
from multitask_core.text import EncodedText, TextEncoder
from multitask_train import checkpoint
from multitask_train.data import Example
from multitask_train.metrics import only, score
from multitask_train.model import MultiTaskModel

CHUNK = 256


def evaluate(
    model: MultiTaskModel, encoder: TextEncoder, examples: Sequence[Example]
) -> dict[str, Any]:
    """Metrics of a model, through the same pipeline that serves it."""
    return evaluate_pipeline(checkpoint.pipeline(model, encoder), examples, progress=False)


def evaluate_checkpoint(folder: Path, examples: Sequence[Example]) -> dict[str, Any]:
    """Metrics of a checkpoint, without those of a head that it was not trained for."""
    metrics = evaluate_pipeline(checkpoint.load_pipeline(folder), examples)
    config = manifest.read(folder, checkpoint.KIND).config
    return only(metrics, config.get("data", {}).get("tasks", "both"))


def evaluate_pipeline(
    pipeline: Pipeline, examples: Sequence[Example], *, progress: bool = True
) -> dict[str, Any]:
    """Metrics of any pipeline: a checkpoint's or an exported artifact's."""
    return score(examples, predict(pipeline, examples, progress=progress))


def text_logits(
    pipeline: Pipeline, examples: Sequence[Example], *, progress: str = ""
) -> Iterator[tuple[int, EncodedText, Logits]]:
    """Yield the number, pieces and logits of every example whose text can be answered.

    progress: what a bar says, if there shall be one.
    """
    with tqdm(total=len(examples), unit="text", desc=progress, disable=not progress) as bar:
        for first in range(0, len(examples), CHUNK):
            chunk = examples[first : first + CHUNK]
            encoded = pipeline.encode([example.text for example in chunk])
            texts = [one for one in encoded if isinstance(one, EncodedText)]
            numbers = [first + at for at, one in enumerate(encoded) if isinstance(one, EncodedText)]
            yield from zip(numbers, texts, pipeline.logits(texts), strict=True)
            bar.update(len(chunk))


def predict(
    pipeline: Pipeline, examples: Sequence[Example], *, progress: bool = False
) -> list[Prediction]:
    """The pipeline's answer to every example's text."""
    texts = [example.text for example in examples]
    predictions: list[Prediction] = []
    with tqdm(total=len(texts), unit="text", disable=not progress) as bar:
        for first in range(0, len(texts), CHUNK):
            chunk = texts[first : first + CHUNK]
            predictions.extend(pipeline.predict(chunk))
            bar.update(len(chunk))
    return predictions


def describe(metrics: Mapping[str, Any]) -> str:
    """Metrics in one line for people, in percent."""
    names = (
        ("classification", "accuracy", "accuracy"),
        ("classification", "macro_f1", "macro F1"),
        ("ner", "f1", "entity F1"),
        ("ner", "token_accuracy", "token accuracy"),
        ("joint", "exact_match", "exact match"),
    )
    parts = [
        f"{title} {100 * metrics[task][key]:.2f}"
        for task, key, title in names
        if metrics[task] is not None
    ]
    return f"{', '.join(parts)} ({metrics['examples']} examples)"
