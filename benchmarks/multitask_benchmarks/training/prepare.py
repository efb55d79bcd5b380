"""Everything that both sides share, made once: the windows and the model with its first weights."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from multitask_core.errors import DataError
from multitask_core.files import write_json
from multitask_core.text import Windowing
from multitask_train import backbones, checkpoint
from multitask_train.data import read_examples
from multitask_train.data.features import Feature, collect_schema, encode_examples
from multitask_train.model import MultiTaskModel


@dataclass(frozen=True)
class Material:
    """Files that the workers read, and facts about them.

    features: all windows. batch: one batch of windows with equally many labels each, for the
    check. parameters: of the model.
    """

    model: Path
    features: Path
    batch: Path
    pad_id: int
    parameters: int
    lengths: list[int]

    @property
    def facts(self) -> dict[str, float]:
        """What the result file says of the data."""
        return {
            "windows": len(self.lengths),
            "tokens": sum(self.lengths),
            "median_tokens": float(np.median(self.lengths)),
            "p95_tokens": float(np.percentile(self.lengths, 95)),
            "longest_tokens": max(self.lengths),
        }


def prepare(
    folder: Path,
    source: str,
    split: str,
    *,
    encoder: str,
    sentences: int,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Material:
    """Read, tokenise and window the data, put fresh heads on the encoder, write both.

    sentences: how many at most, drawn at random. batch_size: of all processes together. Raises
    ConfigError, DataError.
    """
    examples = read_examples(source, split)
    if sentences < len(examples):
        examples = random.Random(seed).sample(examples, sentences)  # noqa: S311  no secret
    schema = collect_schema(examples)
    torch.manual_seed(seed)
    resolved = backbones.resolve(encoder)
    tokenizer = checkpoint.load_tokenizer(resolved)
    windowing = Windowing(max_length, max_length // 4)
    model = MultiTaskModel.from_encoder(resolved, schema, windowing=windowing)
    features = encode_examples(examples, checkpoint.text_encoder(tokenizer, model), schema)
    _check(features, batch_size)
    material = Material(
        folder / "model",
        folder / "features.json",
        folder / "batch.json",
        int(tokenizer.pad_token_id),
        model.num_parameters(),
        [len(one.input_ids) for one in features],
    )
    model.save_pretrained(material.model)
    write_features(material.features, features)
    write_features(material.batch, equal_windows(features, batch_size))
    return material


def equal_windows(features: Sequence[Feature], count: int) -> list[Feature]:
    """`count` windows with equally many labels, repeated where there are too few.

    The Trainer averages the processes' mean losses, this package divides by the labels of all: for
    such windows that is the same, however they are shared out.
    """
    commonest, _ = Counter(one.tagged for one in features).most_common(1)[0]
    chosen = [one for one in features if one.tagged == commonest]
    return list(islice(cycle(chosen), count))


def write_features(path: Path, features: Sequence[Feature]) -> None:
    """Write windows once, so that no worker tokenises."""
    write_json(path, [astuple(feature) for feature in features])


def read_features(path: Path) -> list[Feature]:
    """Read the windows that `write_features` wrote."""
    return [Feature(*values) for values in json.loads(path.read_text("utf-8"))]


def _check(features: Sequence[Feature], batch_size: int) -> None:
    kinds = Counter(one.kind for one in features)
    if len(kinds) > 1:
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise DataError(
            f"the data mixes windows of several kinds ({found}): the two sides would put different "
            "ones into a batch; give one corpus whose sentences are all annotated alike"
        )
    if len(features) < batch_size:
        raise DataError(
            f"the data has {len(features)} windows, less than a batch of {batch_size}; give more "
            "data or a smaller --batch-size"
        )
