"""What trains, when and at which rate.

    full                    everything
    heads                   both heads; the encoder stays as it came
    output-layers           the heads' last layers alone
    freeze-classification   everything but the sentence head
    freeze-ner              everything but the token head
    gradual                 the heads at first, then one encoder layer more, the last one first and
                            the embeddings at the end (Howard and Ruder 2018, "gradual unfreezing")

The encoder's layers learn at rates that fall from the last to the first by `optim.layer_decay`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from multitask_train.model import MultiTaskModel
from multitask_train.settings import OptimSettings

log = logging.getLogger(__name__)

# `encoder.layer.3.…` of BERT and MPNet, `transformer.layer.3.…` of DistilBERT, `layers.3.…`.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)\.")
# The task whose head a strategy leaves as it is, and where a task's head stands in the model.
FROZEN_HEADS = {"freeze-classification": "classification", "freeze-ner": "ner"}
_HEADS = {"classification": "sentence_head.", "ner": "token_head."}


@dataclass(frozen=True)
class Part:
    """Parameters that begin to train together.

    depth: 0 for the heads, 1 for the encoder's last layer, growing to its embeddings. starts: the
    update after which it trains, None for never. late: the run ends before `starts`.
    """

    name: str
    depth: int
    rate: float
    starts: int | None
    late: bool
    parameters: list[nn.Parameter]

    @property
    def trains(self) -> bool:
        """Whether it ever trains."""
        return self.starts is not None and not self.late

    @property
    def size(self) -> int:
        """Numbers in it."""
        return sum(parameter.numel() for parameter in self.parameters)


class Strategy:
    """Applies one strategy to a model in a run of `optim.epochs` of so many updates."""

    def __init__(self, model: MultiTaskModel, optim: OptimSettings, updates_per_epoch: int) -> None:
        self._model, self._strategy, self._epochs = model, optim.strategy, optim.epochs
        self.parts = list(_parts(model, optim, updates_per_epoch))
        late = [part.name for part in self.parts if part.late]
        if late and optim.epochs:
            log.warning(
                "%d parts never begin to train in %d updates: %s; unfreeze earlier with "
                "optim.unfreeze_every, or train longer",
                *(len(late), optim.epochs * updates_per_epoch, ", ".join(late)),
            )
        self.advance(0)

    def advance(self, update: int) -> list[str]:
        """Let those parts train whose turn has come after so many updates; names the new ones."""
        begun = []
        for part in self.parts:
            trains = part.starts is not None and update >= part.starts
            if trains and not part.parameters[0].requires_grad and update:
                begun.append(part.name)
            for parameter in part.parameters:
                parameter.requires_grad_(trains)
        return begun

    def train_mode(self) -> None:
        """Put what trains into training mode; a frozen encoder answers without dropout."""
        self._model.train()
        if self._strategy in ("heads", "output-layers"):
            self._model.encoder.eval()

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, of all that ever trains, each with its part's depth.

        Vectors, which are biases and norms, have no decay. One empty group where nothing trains.
        """
        groups: list[dict[str, Any]] = []
        for part in self.parts:
            if not part.trains:
                continue
            for decays in (True, False):
                chosen = [one for one in part.parameters if (one.ndim > 1) == decays]
                if chosen:
                    decay = weight_decay if decays else 0.0
                    groups.append(
                        {"params": chosen, "lr": part.rate, "weight_decay": decay}
                        | {"depth": part.depth}
                    )
        return groups or [{"params": [], "depth": 0}]

    @property
    def trained(self) -> int:
        """Parameters that ever train."""
        return sum(part.size for part in self.parts if part.trains)

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(part.size for part in self.parts)

    def report(self) -> str:
        """A line for each part: its size, its rate and when it trains."""
        lines = [f"strategy {self._strategy}: {self.trained:,} of {self.total:,} parameters train"]
        for part in self.parts:
            when = f"never: after update {part.starts}" if part.late else "frozen"
            if not self._epochs:
                when = "as it is"
            if part.trains:
                when = f"rate {part.rate:.2e}"
                when += f", from update {part.starts + 1}" if part.starts else ""
            lines.append(f"  {part.name:<28}{part.size:>13,}  {when}")
        return "\n".join(lines)


def frozen_in_heads(model: MultiTaskModel, optim: OptimSettings) -> list[str]:
    """The heads' parts that the strategy never trains."""
    return [part.name for part in _parts(model, optim, 1) if not part.depth and part.starts is None]


def _parts(model: MultiTaskModel, optim: OptimSettings, updates: int) -> Iterator[Part]:
    named: dict[tuple[int, str], list[nn.Parameter]] = {}
    layers = _layers(model)
    for name, parameter in model.named_parameters():
        named.setdefault(_place(name, layers), []).append(parameter)
    for (depth, name), parameters in sorted(named.items(), key=lambda item: item[0]):
        rate = optim.head_learning_rate
        if depth:
            rate = optim.learning_rate * optim.layer_decay ** (depth - 1)
        starts = _start(name, depth, optim, updates)
        late = starts is not None and starts >= optim.epochs * updates
        yield Part(name, depth, rate, starts, late, parameters)


def _layers(model: MultiTaskModel) -> int:
    found = [_LAYER.search(name) for name, _ in model.encoder.named_parameters()]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _place(name: str, layers: int) -> tuple[int, str]:
    """Depth and name of the part that a parameter belongs to."""
    if not name.startswith("encoder."):
        head, _, inner = name.partition(".")
        return 0, f"{head}.{inner.partition('.')[0]}"
    if match := _LAYER.search(name):
        index = int(match[1])
        return layers - index, f"encoder layer {index + 1} of {layers}"
    if "embeddings" in name:
        return layers + 1, "encoder embeddings"
    return 1, "encoder, other"  # a last norm, a bias of all positions


def _start(name: str, depth: int, optim: OptimSettings, updates: int) -> int | None:
    strategy = optim.strategy
    if strategy == "heads":
        return None if depth else 0
    if strategy == "output-layers":
        return 0 if name.endswith(".output") else None
    if strategy == "gradual":
        unit = updates if optim.unfreeze_unit == "epochs" else 1
        return round(depth * optim.unfreeze_every * unit)
    frozen = FROZEN_HEADS.get(strategy)
    return None if frozen and name.startswith(_HEADS[frozen]) else 0
