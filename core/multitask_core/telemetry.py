"""What a text model counts and says of itself: an encoder with a meter, and the metrics' names.

Counting is cheap; whoever publishes the counters takes the increments now and then with `take`.
Names follow Prometheus: base units, `_total` for what only grows.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from multitask_core.batching import RowLogits, Rows
from multitask_core.machine import package_versions
from multitask_core.pipeline import Encoder
from multitask_core.prediction import Prediction
from multitask_core.signature import PADDED
from multitask_core.turns import Turns

COUNTERS = {
    "multitask_texts_total": "Texts answered",
    "multitask_windows_total": "Windows of texts that went through the encoder",
    "multitask_tokens_total": "Word pieces that went through the encoder, special tokens included",
    "multitask_padding_tokens_total": "Padding that went through the encoder, rounded shapes apart",
    "multitask_batches_total": "Runs of the encoder",
    "multitask_labels_total": "Answers by label",
    "multitask_entities_total": "Entities found, by type",
    "multitask_confidence_sum_total": "Sum of the labels' scores",
    "multitask_confidence_bucket_total": "Answers whose label's score is at most le",
    "multitask_deferred_total": "Requests that stepped aside for shorter ones",
    "multitask_rejected_total": "Requests refused, by reason",
    "multitask_encoder_seconds_total": "Time in the encoder",
    "multitask_encoder_cpu_seconds_total": "CPU time in the encoder, where it runs in this process",
}
# A gauge that is always 1: what matters is in its labels, see `engine_info`.
ENGINE_INFO = "multitask_engine_info"
CONFIDENCE_BOUNDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
REASONS = ("bad_input", "overload", "error")

# A counter's name, and its label and that one's value, both "" where it has none.
Key = tuple[str, str, str]


def engine_info(engine: str) -> dict[str, str]:
    """Labels that say what runs the encoder: its engine, and runtimes' versions, "" for none."""
    found = package_versions(("onnxruntime", "onnxruntime-gpu", "openvino"))
    onnxruntime = found.get("onnxruntime-gpu") or found.get("onnxruntime", "")
    return {"engine": engine, "onnxruntime": onnxruntime, "openvino": found.get("openvino", "")}


class Meter:
    """Counters of one process; safe to share between threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # Prometheus misses the first step of a series that was not there before.
        self._counts: Counter[Key] = Counter(
            {("multitask_rejected_total", "reason", reason): 0 for reason in REASONS}
        )

    def add(self, name: str, value: float = 1, label: str = "", shown: str = "") -> None:
        """Count `value` more, under one label where it has one."""
        with self._guard:
            self._counts[name, label, shown] += value  # type: ignore[assignment]

    def count_answers(self, answers: Sequence[Prediction]) -> None:
        """Count texts, labels, entities and confidence."""
        counts: Counter[Key] = Counter()
        counts["multitask_texts_total", "", ""] = len(answers)
        for answer in answers:
            counts["multitask_labels_total", "label", answer.label] += 1
            counts["multitask_confidence_sum_total", "", ""] += answer.score  # type: ignore[assignment]
            for bound in CONFIDENCE_BOUNDS[
                bisect_left(CONFIDENCE_BOUNDS, min(answer.score, 1.0)) :
            ]:
                counts["multitask_confidence_bucket_total", "le", str(bound)] += 1
            for entity in answer.entities:
                counts["multitask_entities_total", "type", entity.type] += 1
        with self._guard:
            self._counts.update(counts)

    def take(self) -> dict[Key, float]:
        """The increments since the last call."""
        with self._guard:
            counts, self._counts = self._counts, Counter()
        return dict(counts)


class MeteredEncoder:
    """An encoder whose calls are counted and, where `turns` says so, take turns.

    layout: of the graph, since only padded ones compute padding. An encoder that takes turns has
    the process's CPU to itself, so that the CPU time is its own.
    """

    def __init__(
        self, encoder: Encoder, layout: str, meter: Meter, turns: Turns | None = None
    ) -> None:
        self._encoder, self._layout, self._meter, self._turns = encoder, layout, meter, turns

    def __call__(self, rows: Rows) -> Sequence[RowLogits]:
        """Run one batch."""
        tokens = sum(map(len, rows))
        padding = len(rows) * max(map(len, rows)) - tokens if self._layout == PADDED else 0
        if self._turns:
            with self._turns:
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                answers = self._encoder(rows)
                self._meter.add("multitask_encoder_cpu_seconds_total", time.process_time() - cpu_s)
        else:
            wall_s = time.perf_counter()
            answers = self._encoder(rows)
        self._meter.add("multitask_encoder_seconds_total", time.perf_counter() - wall_s)
        self._meter.add("multitask_batches_total")
        self._meter.add("multitask_windows_total", len(rows))
        self._meter.add("multitask_tokens_total", tokens)
        self._meter.add("multitask_padding_tokens_total", padding)
        return answers
