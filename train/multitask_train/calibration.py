"""Temperature scaling: one number for each head that makes its scores mean what they say.

A network trained to the end answers 0.99 where it is right nine times in ten. Its logits divided by
a temperature T, the one with the lowest negative log-likelihood on dev, give honest scores and the
same answers (Guo et al. 2017, arXiv 1706.04599, section 4.2).

T is folded into the head's last layer, logits / T = (W / T) x + b / T, and not kept beside it: the
export, INT8, the server and the in-process pipeline then serve calibrated scores without one more
operation, and none can forget it or apply it twice. config.json tells what was divided by.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from multitask_core.batching import Float32, Int64
from multitask_core.decode import word_logits
from multitask_core.pipeline import Logits, Pipeline
from multitask_core.text import EncodedText
from multitask_train.data import Example
from multitask_train.data.features import word_tags
from multitask_train.model import MultiTaskModel

log = logging.getLogger(__name__)

BOUNDS = (0.05, 20.0)
MIN_LABELS = 50
# One number is fitted: more sentences cost time and memory, and move its second decimal at most.
MAX_EXAMPLES = 5_000
CHUNK = 256

# Logits [N, labels] of one head with the gold indices [N].
_Labelled = tuple[list[Float32], list[int]]


@dataclass(frozen=True)
class Temperatures:
    """What each head's logits are divided by; 1 leaves them alone."""

    classification: float = 1.0
    ner: float = 1.0

    def __mul__(self, other: Temperatures) -> Temperatures:
        """Both, one after the other."""
        return Temperatures(self.classification * other.classification, self.ner * other.ner)


def fit(pipeline: Pipeline, examples: Sequence[Example], tasks: str = "both") -> Temperatures:
    """The temperatures with the lowest mean negative log-likelihood of gold labels and word tags.

    examples: sentences that were not trained on. tasks: `both`, or the one head that was trained.
    Labels and types that the schema lacks do not count. A head without enough labels, or without
    one error, keeps 1, and the log says so.
    """
    classes: _Labelled = ([], [])
    words: _Labelled = ([], [])
    for example, text, (class_logits, token_logits) in _logits(pipeline, examples):
        if example.label and example.label in pipeline.schema.class_ids:
            classes[0].append(class_logits.mean(axis=0, keepdims=True))
            classes[1].append(pipeline.schema.class_ids[example.label])
        if example.entities is not None:
            tags = word_tags(text.words, example.entities)
            known = [index for index, tag in enumerate(tags) if tag in pipeline.schema.tag_ids]
            words[0].append(word_logits(text, token_logits)[known])
            words[1].extend(pipeline.schema.tag_ids[tags[index]] for index in known)
    return Temperatures(
        1.0 if tasks == "ner" else _temperature("sentence", classes),
        1.0 if tasks == "classification" else _temperature("token", words),
    )


def fit_temperature(logits: Float32, gold: Int64) -> float:
    """The T within BOUNDS that minimises the mean of -log softmax(logits / T) at gold.

    logits: [N, labels]; gold: [N]. The mean is convex in 1 / T, so that it has one minimum in
    log T, in which the search runs.
    """
    found = minimize_scalar(
        lambda exponent: mean_nll(logits, gold, float(np.exp(exponent))),
        bounds=np.log(BOUNDS),
        method="bounded",
    )
    return float(np.exp(found.x))


def mean_nll(logits: Float32, gold: Int64, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood in nats of gold [N] under softmax(logits [N, labels] / T)."""
    scaled = logits.astype(np.float64) / temperature
    return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(gold)), gold]).mean())


def apply(model: MultiTaskModel, temperatures: Temperatures) -> Temperatures:
    """Divide both heads' last layers; returns what they have been divided by in all.

    Answers stay what they were but for ties. The total also stands in the model's config.
    """
    with torch.no_grad():
        for layer, temperature in (
            (model.sentence_head.output, temperatures.classification),
            (model.token_head.output, temperatures.ner),
        ):
            layer.weight.div_(temperature)
            layer.bias.div_(temperature)
    total = applied(model) * temperatures
    model.config.update({"temperatures": asdict(total)})
    return total


def applied(model: MultiTaskModel) -> Temperatures:
    """What a model's heads have been divided by."""
    return Temperatures(**getattr(model.config, "temperatures", {}))


def _logits(
    pipeline: Pipeline, examples: Sequence[Example]
) -> Iterator[tuple[Example, EncodedText, Logits]]:
    """Yield examples spread over the whole list, at most MAX_EXAMPLES, with their logits."""
    chosen = examples[:: max(1, -(-len(examples) // MAX_EXAMPLES))]
    for first in range(0, len(chosen), CHUNK):
        chunk = chosen[first : first + CHUNK]
        encoded = pipeline.encode([example.text for example in chunk])
        pairs = [
            (example, text)
            for example, text in zip(chunk, encoded, strict=True)
            if isinstance(text, EncodedText)
        ]
        logits = pipeline.logits([text for _, text in pairs])
        for (example, text), one in zip(pairs, logits, strict=True):
            yield example, text, one


def _temperature(head: str, labelled: _Labelled) -> float:
    count = len(labelled[1])
    if count < MIN_LABELS:
        log.info(
            "temperature of the %s head: 1, as dev has %d labels for it and fitting needs %d",
            head,
            count,
            MIN_LABELS,
        )
        return 1.0
    logits, gold = np.concatenate(labelled[0]), np.asarray(labelled[1], np.int64)
    if bool((logits.argmax(axis=1) == gold).all()):
        # Without an error the likelihood rises for ever as T falls: the best T would be 0.
        log.info(
            "temperature of the %s head: 1, as all %d labels of dev are right: scores that are too "
            "low cannot be told from right ones",
            head,
            count,
        )
        return 1.0
    found = fit_temperature(logits, gold)
    if not BOUNDS[0] * 1.01 < found < BOUNDS[1] / 1.01:
        log.warning("temperature of the %s head: %.3g is at the bound of the search", head, found)
    log.info(
        "temperature of the %s head: %.3f, mean negative log-likelihood of %d labels %.4f → %.4f",
        head,
        found,
        count,
        mean_nll(logits, gold),
        mean_nll(logits, gold, found),
    )
    return found
