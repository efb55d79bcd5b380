"""Train a checkpoint: `python -m multitask_train fit --config FILE [--section.key value …]`."""

from __future__ import annotations

import copy
import hashlib
import logging
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from multitask_core import manifest
from multitask_core.errors import ConfigError, DataError
from multitask_core.text import Windowing
from multitask_train import backbones, checkpoint
from multitask_train.card import model_card
from multitask_train.data import Example, read_examples
from multitask_train.data.batches import UpdatePlan
from multitask_train.data.features import collect_schema, encode_examples, unknown_labels
from multitask_train.data.sources import source_hash
from multitask_train.evaluate import describe, evaluate
from multitask_train.loop import Step, train
from multitask_train.metrics import summary
from multitask_train.model import MultiTaskModel
from multitask_train.settings import FitSettings

log = logging.getLogger(__name__)

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Corpora:
    """The splits and the hash of the training data."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    data_hash: str


def fit(settings: FitSettings) -> Metrics:
    """Train, keep the epoch that is best on dev, write the checkpoint; returns its metrics.

    Raises ConfigError, DataError.
    """
    _check(settings)
    set_seed(settings.run.seed)
    if settings.run.threads:
        torch.set_num_threads(settings.run.threads)
    corpora = _corpora(settings)
    model, tokenizer = _setup(settings, corpora)
    metrics = _fit(settings, model, tokenizer, corpora)
    name = settings.run.output.name
    values = settings.model_dump(mode="json")
    checkpoint.save(
        settings.run.output,
        model,
        tokenizer,
        card=model_card(name, model.config.schema, values, metrics),
        metrics=metrics,
        config=values,
        samples=corpora.dev,
        data=corpora.data_hash,
    )
    log.info("checkpoint: %s", settings.run.output)
    return metrics


def _check(settings: FitSettings) -> None:
    output = settings.run.output
    manifest.check_target(output, checkpoint.KIND, [checkpoint.LOGS])
    if (output / manifest.NAME).exists() and not settings.run.overwrite:
        raise ConfigError(
            f"{output} already holds a checkpoint; name another --run.output or give "
            "--run.overwrite true"
        )


def _setup(
    settings: FitSettings, corpora: Corpora
) -> tuple[MultiTaskModel, PreTrainedTokenizerFast]:
    schema = collect_schema(corpora.train)
    for what, examples in (("dev", corpora.dev), ("test", corpora.test)):
        if unknown := unknown_labels(examples, schema):
            log.warning(
                "%s holds labels or types that training never shows, so they count as wrong: %s",
                what,
                ", ".join(unknown),
            )
    encoder = backbones.resolve(settings.model.encoder)
    tokenizer = checkpoint.load_tokenizer(encoder)
    windowing = Windowing(settings.model.max_length, settings.model.stride)
    model = MultiTaskModel.from_encoder(
        encoder, schema, dropout=settings.model.dropout, windowing=windowing
    )
    _check_length(model)
    log.info(
        "%d classes, %d entity types, %.1f M parameters",
        len(schema.classes),
        len(schema.entity_types),
        model.num_parameters() / 1e6,
    )
    return model, tokenizer


def _check_length(model: MultiTaskModel) -> None:
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


def _fit(
    settings: FitSettings,
    model: MultiTaskModel,
    tokenizer: PreTrainedTokenizerFast,
    corpora: Corpora,
) -> Metrics:
    accelerator = Accelerator(mixed_precision=settings.optim.precision)
    if accelerator.num_processes > 1:
        raise ConfigError("this release trains in one process; start it without accelerate launch")
    encoder = checkpoint.text_encoder(tokenizer, model)
    features = encode_examples(corpora.train, encoder, model.config.schema)
    plan = UpdatePlan(
        features, settings.optim.batch_size, tokenizer.pad_token_id, settings.run.seed
    )
    log.info("windows: %s; %d updates an epoch; on %s", plan.sizes, len(plan), accelerator.device)
    best: tuple[float, Metrics, dict[str, Any]] | None = None
    started = time.perf_counter()
    with _Journal(settings, len(plan)) as journal:
        for step in train(accelerator, model, plan, settings.optim, settings.loss):
            journal.step(step)
            if step.number % len(plan) == 0:
                metrics = evaluate(model, encoder, corpora.dev)
                journal.validated(step, metrics)
                if best is None or summary(metrics) > best[0]:
                    state = copy.deepcopy(model.state_dict())
                    best = summary(metrics), {"epoch": step.epoch, "dev": metrics}, state
    assert best is not None
    model.load_state_dict(best[2])
    result = {**best[1], "train_seconds": round(time.perf_counter() - started, 1)}
    if corpora.test:
        result["test"] = evaluate(model, encoder, corpora.test)
        log.info("test: %s", describe(result["test"]))
    return result


class _Journal:
    """Shows the progress and keeps the TensorBoard log."""

    def __init__(self, settings: FitSettings, updates: int) -> None:
        self._updates, self._epochs = updates, settings.optim.epochs
        self._writer = SummaryWriter(str(settings.run.output / checkpoint.LOGS))
        self._bar: tqdm[Any] = tqdm(total=updates * self._epochs, unit="update", mininterval=1)
        self._tokens, self._started = 0, time.perf_counter()
        self._means: dict[str, float] = {}

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._writer.close()

    def step(self, step: Step) -> None:
        """Log one update's losses, rate and gradient norm."""
        self._tokens += step.tokens
        for task, value in step.losses.items():
            self._means[task] = 0.95 * self._means.get(task, value) + 0.05 * value
            self._writer.add_scalar(f"train/loss/{task}", value, step.number)
        self._writer.add_scalar("train/learning_rate", step.learning_rate, step.number)
        self._writer.add_scalar("train/gradient_norm", step.gradient_norm, step.number)
        speed = self._tokens / (time.perf_counter() - self._started)
        self._bar.set_description(f"epoch {step.epoch}/{self._epochs}", refresh=False)
        losses = {f"loss {task}": f"{value:.3f}" for task, value in self._means.items()}
        self._bar.set_postfix({**losses, "tokens/s": f"{speed:,.0f}"}, refresh=False)
        self._bar.update()

    def validated(self, step: Step, metrics: Metrics) -> None:
        """Log an epoch's dev metrics and its smoothed training losses."""
        for task in ("classification", "ner", "joint"):
            for name, value in (metrics[task] or {}).items():
                self._writer.add_scalar(f"dev/{task}/{name}", value, step.number)
        losses = ", ".join(f"{task} {value:.3f}" for task, value in self._means.items())
        tqdm.write(f"epoch {step.epoch}: losses {losses}; dev {describe(metrics)}")


def _corpora(settings: FitSettings) -> Corpora:
    data = settings.data
    for split, sources in (("train", data.train), ("dev", data.dev)):
        if not sources:
            raise DataError(f"data.{split} names no source; training needs one")
    training = _read(data.train, "train", data.limit, settings.run.seed)
    hashes = " ".join(source_hash(source, "train") for source in data.train)
    data_hash = hashlib.sha256(hashes.encode()).hexdigest()
    return Corpora(training, _read(data.dev, "dev"), _read(data.test, "test"), data_hash)


def _read(sources: Iterable[str], split: str, limit: int = 0, seed: int = 0) -> list[Example]:
    """All examples of a split, or a random `limit` of each source in their own order."""
    examples: list[Example] = []
    for source in sources:
        part = read_examples(source, split)
        if 0 < limit < len(part):
            chosen = random.Random(seed).sample(range(len(part)), limit)  # noqa: S311  no secret
            part = [part[index] for index in sorted(chosen)]
        log.info("%s: %s, %d examples", split, Path(source).name, len(part))
        examples.extend(part)
    return examples
