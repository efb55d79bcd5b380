"""A run's options once their defaults, which depend on the device, are settled."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """device: cpu or cuda. subjects: patterns of names, none for the default ones.

    seconds: of each engine at each point in each round. longest_call_s: a point with a longer call
    is left out. budget_s: for everything. allow_different: logits may be beyond their bounds.
    """

    device: str
    subjects: tuple[str, ...]
    artifact: Path | None
    rounds: int
    seconds: float
    longest_call_s: float
    budget_s: float
    allow_different: bool
    started_s: float = field(default_factory=time.monotonic)

    @property
    def spent_s(self) -> float:
        """Of the budget."""
        return time.monotonic() - self.started_s
