"""Temperature scaling: one number for each head that makes its scores mean what they say.

A network trained to the end answers 0.99 where it is right nine times in ten. Its logits divided by
a temperature T, the one with the lowest negative log-likelihood on dev, give honest scores and the
same answers (Guo et al. 2017, arXiv 1706.04599, section 4.2). The likelihood is that of what is
served: of gold labels for the sentence head; for the token head, that entities found with a score s
are right with probability s. Fitted on the tags of all words instead, most of which are O and have
no score, T made the scores of entities worse on two of three models tried.

T is folded into the head's last layer, logits / T = (W / T) x + b / T, and not kept beside it: the
export, INT8, the server and the in-process pipeline then serve calibrated scores without one more
operation, and none can forget it or apply it twice. config.json tells what was divided by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from multitask_core.batching import Float32, Int64
from multitask_core.decode import best_tags, decode, word_logits
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Logits, Pipeline
from multitask_core.text import EncodedText
from multitask_train.data import Example
from multitask_train.evaluate import text_logits
from multitask_train.model import MultiTaskModel

log = logging.getLogger(__name__)

BOUNDS = (0.05, 20.0)
# Answers below which a head is left alone.
MIN_ANSWERS = 50
# One number is fitted: more sentences cost time and memory, and move its second decimal at most.
MAX_EXAMPLES = 5_000
# A score of 1 for a wrong entity costs 28 nats, not infinitely many.
_EPSILON = 1e-12

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Temperatures:
    """What each head's logits are divided by; 1 leaves them alone."""

    classification: float = 1.0
    ner: float = 1.0

    def __mul__(self, other: Temperatures) -> Temperatures:
        """Both, one after the other."""
        return Temperatures(self.classification * other.classification, self.ner * other.ner)


@dataclass
class LabelAnswers:
    """Class logits of texts, [1, C] each, their gold classes and whether each answer is right."""

    logits: list[Float32] = field(default_factory=list)
    gold: list[int] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)

    def add(self, example: Example, class_logits: Float32, schema: LabelSchema) -> None:
        """Take a text's windows, unless its label is none of the schema's."""
        if example.label and example.label in schema.class_ids:
            self.logits.append(class_logits.mean(axis=0, keepdims=True))
            self.gold.append(schema.class_ids[example.label])
            self.correct.append(int(self.logits[-1].argmax()) == self.gold[-1])

    def fit(self) -> tuple[float, float, float]:
        """T, and the mean negative log-likelihood before and after."""
        logits, gold = np.concatenate(self.logits), np.asarray(self.gold, np.int64)
        return _minimum(lambda temperature: label_nll(logits, gold, temperature))


@dataclass
class EntityAnswers:
    """Of found entities: their words' tag logits [words, T] and tags, whether each is right."""

    logits: list[Float32] = field(default_factory=list)
    tags: list[Int64] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)

    def add(self, example: Example, text: EncodedText, logits: Logits, schema: LabelSchema) -> None:
        """Take a text's entities, unless gold has types that the schema lacks or says nothing."""
        gold = example.entities
        if gold is None or any(span.type not in schema.entity_types for span in gold):
            return
        words = word_logits(text, logits[1])
        tags = best_tags(words)
        starts = [start for start, _ in text.words]
        for entity in decode(text, *logits, schema).entities:
            first, last = np.searchsorted(starts, (entity.start, entity.end))
            self.logits.append(words[first:last])
            self.tags.append(tags[first:last])
            self.correct.append((entity.start, entity.end, entity.type) in gold)

    def fit(self) -> tuple[float, float, float]:
        """T, and the mean negative log-likelihood before and after."""
        logits, tags = np.concatenate(self.logits), np.concatenate(self.tags)
        owners = np.repeat(np.arange(len(self.tags)), [len(one) for one in self.tags])
        right = np.asarray(self.correct)
        return _minimum(lambda temperature: entity_nll(logits, tags, owners, right, temperature))


def fit(pipeline: Pipeline, examples: Sequence[Example], tasks: str = "both") -> Temperatures:
    """The temperatures that make gold labels, and the entities found right or wrong, likeliest.

    examples: sentences that were not trained on. tasks: `both`, or the one head that was trained.
    Gold labels and types that the schema lacks do not count. A head with few answers, or without a
    wrong one, keeps 1, and the log says so.
    """
    labels, entities = LabelAnswers(), EntityAnswers()
    spread = examples[:: max(1, -(-len(examples) // MAX_EXAMPLES))]
    for at, text, found in text_logits(pipeline, spread):
        labels.add(spread[at], found[0], pipeline.schema)
        entities.add(spread[at], text, found, pipeline.schema)
    return Temperatures(
        1.0 if tasks == "ner" else _temperature("sentence head", "labels", labels),
        1.0 if tasks == "classification" else _temperature("token head", "entities", entities),
    )


def label_nll(logits: Float32, gold: Int64, temperature: float = 1.0) -> float:
    """Mean of -log softmax(logits [N, C] / T) at gold [N], in nats."""
    likelihoods = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -float(likelihoods[np.arange(len(gold)), gold].mean())


def entity_nll(
    logits: Float32,
    tags: Int64,
    owners: Int64,
    right: npt.NDArray[np.bool_],
    temperature: float = 1.0,
) -> float:
    """Mean of -log s over right entities and -log(1 - s) over wrong ones, in nats.

    logits: those of all entities' words, [N, T]; tags: which of them the answer holds, [N]; owners:
    the entity of each word, [N]; right: [E]. An entity's score s is the mean over its words of
    their tag's probability.
    """
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    chosen = probabilities[np.arange(len(tags)), tags]
    scores: Float64 = np.bincount(owners, weights=chosen) / np.bincount(owners)
    likelihoods = np.where(right, scores, 1 - scores)
    return -float(np.log(np.maximum(likelihoods, _EPSILON)).mean())


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


def _temperature(head: str, what: str, answers: LabelAnswers | EntityAnswers) -> float:
    count = len(answers.correct)
    name = f"temperature of the {head}"
    if count < MIN_ANSWERS:
        log.info("%s: 1; %d %s on dev, fitting needs %d", name, count, what, MIN_ANSWERS)
        return 1.0
    if all(answers.correct):
        # The likelihood then rises for ever as T falls: the best T would be 0.
        log.info("%s: 1; all %d %s on dev are right, so that none is too sure", name, count, what)
        return 1.0
    found, before, after = answers.fit()
    if not BOUNDS[0] * 1.01 < found < BOUNDS[1] / 1.01:
        log.warning("%s: %.3g is at the bound of the search", name, found)
    log.info(
        "%s: %.3f from %d %s on dev, mean negative log-likelihood %.4f → %.4f",
        *(name, found, count, what, before, after),
    )
    return found


def _minimum(nll: Callable[[float], float]) -> tuple[float, float, float]:
    """T within BOUNDS where `nll` is least, and its values at 1 and at T.

    A grid finds the valley, a bounded search in log T its bottom.
    """
    grid = np.log(np.geomspace(*BOUNDS, 41))
    best = int(np.argmin([nll(float(np.exp(exponent))) for exponent in grid]))
    bounds = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    found = minimize_scalar(
        lambda exponent: nll(float(np.exp(exponent))), bounds=bounds, method="bounded"
    )
    return float(np.exp(found.x)), nll(1.0), float(found.fun)
