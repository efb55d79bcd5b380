"""The text model's own metrics on Triton's Prometheus page, and what a stretch of time added."""

from __future__ import annotations

import re
import urllib.request
from collections import defaultdict
from collections.abc import Mapping

from multitask_core.errors import ClientError
from multitask_core.telemetry import ENGINE_INFO

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

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def read_counters(url: str) -> dict[str, float]:
    """Every counter of ours, summed over models, versions and labels; raises ClientError.

    Empty where the server exports none.
    """
    return parse(read_page(url))


def read_page(url: str) -> str:
    """The whole page; raises ClientError."""
    try:
        with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310  our own server
            text: str = page.read().decode()
            return text
    except OSError as error:
        raise ClientError(f"cannot read the metrics at {url}: {error}") from error


def engine(page: str, version: str) -> dict[str, str]:
    """Engine and runtimes' versions of a version of the text model; empty where it does not say."""
    for line in page.splitlines():
        if line.startswith(f"{ENGINE_INFO}{{"):
            labels = dict(_LABEL.findall(line))
            if labels.pop("version", "") == version:
                labels.pop("model", None)
                return labels
    return {}


def parse(page: str) -> dict[str, float]:
    """Sums by name of the page's series that are ours and count something."""
    sums: dict[str, float] = defaultdict(float)
    for line in page.splitlines():
        match = _LINE.match(line) if line.startswith(PREFIX) else None
        if match and match[1] != ENGINE_INFO:
            sums[match[1]] += float(match[2])
    return dict(sums)


def added(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What came since; counters that were not there before began at 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def mean_batch(counts: Mapping[str, float]) -> float | None:
    """Windows in a batch of the encoder, None where nothing was counted."""
    batches = counts.get(BATCHES, 0.0)
    return counts.get(WINDOWS, 0.0) / batches if batches else None
