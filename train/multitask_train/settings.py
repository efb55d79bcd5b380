"""The settings of `fit`, with their meaning and unit; see train/configs for complete files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from multitask_core.config import Section


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Sources = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class ModelSettings(Section):
    """The network."""

    encoder: str = "minilm"
    """`minilm` (carried by a PyPI package), a folder, or a hub id such as bert-base-uncased"""
    dropout: Fraction = 0.1
    """Dropout before both heads' output layers"""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Pieces in a window, special tokens included; longer texts are cut into several windows"""
    stride: Annotated[int, Field(ge=0)] = 64
    """Pieces by which windows overlap"""


class DataSettings(Section):
    """Corpora: one source or a list. A source is a file, a folder, `hub:OWNER/NAME` or `demo`."""

    train: Sources = ("demo",)
    """Sources to learn from; each sentence trains the heads that its annotation serves"""
    dev: Sources = ("demo",)
    """Sources that choose the best epoch"""
    test: Sources = ()
    """Sources measured once at the end"""
    limit: Annotated[int, Field(ge=0)] = 0
    """At most so many training examples of each source; 0: all"""


class OptimSettings(Section):
    """AdamW with linear warm-up and decay."""

    epochs: Positive = 5
    """Passes over the longest corpus"""
    batch_size: Positive = 32
    """Windows in a batch; each update takes one batch of every kind of corpus"""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak rate of the encoder"""
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak rate of both heads"""
    weight_decay: NonNegative = 0.01
    """Of weight matrices; biases and layer norms have none"""
    warmup: Fraction = 0.1
    """Share of the updates over which the rate rises"""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no, bf16 or fp16 (fp16 on GPU only)"""


class LossSettings(Section):
    """Weights of the two losses in their sum."""

    classification: NonNegative = 1.0
    """Weight of the sentence head's cross-entropy"""
    ner: NonNegative = 1.0
    """Weight of the token head's cross-entropy"""


class RunSettings(Section):
    """Where the run goes and how it repeats."""

    output: Path = Path("runs/run")
    """Folder of the checkpoint"""
    overwrite: bool = False
    """Replace a checkpoint that is already there"""
    seed: int = 13
    """Seeds weights, dropout and order"""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0: torch's choice"""


class FitSettings(Section):
    """Everything `fit` can be told."""

    model: ModelSettings = ModelSettings()
    """The network"""
    data: DataSettings = DataSettings()
    """Corpora"""
    optim: OptimSettings = OptimSettings()
    """Optimiser"""
    loss: LossSettings = LossSettings()
    """Loss weights"""
    run: RunSettings = RunSettings()
    """Output and seeds"""
