"""The text model's own counters on Triton's Prometheus page, and what a stretch of time added."""

from __future__ import annotations

import re
import urllib.request
from collections import defaultdict
from collections.abc import Mapping

from multitask_core.errors import ClientError

PREFIX = "multitask_"
ENCODER_CPU = "multitask_encoder_cpu_seconds_total"
ENCODER_WALL = "multitask_encoder_seconds_total"
BATCHES = "multitask_batches_total"
WINDOWS = "multitask_windows_total"
TOKENS = "multitask_tokens_total"
PADDING = "multitask_padding_tokens_total"
TEXTS = "multitask_texts_total"

# `name{label="a",…} 12.5`; label values may hold escaped quotes and braces.
_LINE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?\s+(\S+)')


def read_counters(url: str) -> dict[str, float]:
    """Every counter of ours, summed over models, versions and labels; raises ClientError.

    Empty where the server exports none.
    """
    try:
        with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310  our own server
            return parse(page.read().decode())
    except OSError as error:
        raise ClientError(f"cannot read the metrics at {url}: {error}") from error


def parse(page: str) -> dict[str, float]:
    """Sums by name of the page's series that are ours."""
    sums: dict[str, float] = defaultdict(float)
    for line in page.splitlines():
        match = _LINE.match(line) if line.startswith(PREFIX) else None
        if match:
            sums[match[1]] += float(match[2])
    return dict(sums)


def added(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What came since; counters that were not there before began at 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def mean_batch(counts: Mapping[str, float]) -> float | None:
    """Windows in a batch of the encoder, None where nothing was counted."""
    batches = counts.get(BATCHES, 0.0)
    return counts.get(WINDOWS, 0.0) / batches if batches else None
