"""How many texts a second the encoder answers by itself: no server, tokenizer or decoding.

What is best depends on engine and machine, so two arrangements are measured and the faster one is
the limit: as many sessions side by side as the server has instances, and one alone with all CPUs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from multitask_core.artifact import Artifact
from multitask_core.batching import Rows
from multitask_core.serving import Serving
from multitask_core.session import OnnxEncoder


class Bank:
    """Sessions on one graph that run side by side, each in a thread of its own."""

    def __init__(self, artifact: Artifact, variant: str, serving: Serving, sessions: int) -> None:
        self.encoders = [
            OnnxEncoder.from_artifact(
                artifact,
                variant,
                engine=serving.engine,
                threads=serving.threads if sessions == serving.instances else 0,
                instances=sessions,
            )
            for _ in range(sessions)
        ]

    def rate(self, rows: Rows, batch: int, seconds: float) -> float:
        """Rows a second of all sessions together; a batch's rows are sorted by length."""
        counts = [0] * len(self.encoders)
        start_s = time.perf_counter()

        def work(number: int) -> None:
            stream = cycle([*rows[number:], *rows[:number]])
            while time.perf_counter() < start_s + seconds:
                chosen = sorted(islice(stream, batch), key=len)
                self.encoders[number](chosen)
                counts[number] += len(chosen)

        workers = [threading.Thread(target=work, args=(one,)) for one in range(len(counts))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - start_s)


class Encoder:
    """The graph that a server runs, in this process.

    facts: of what is served, as `served.served_by` finds them; `auto` is the engine that the server
    took. Raises ArtifactError or ConfigError for an artifact that has not what the server runs, and
    for an engine that is not here.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], texts: Sequence[str]) -> None:
        artifact, settings = Artifact.open(folder), facts["parameters"]
        serving = Serving.model_validate_json(settings.get("serving", "{}"))
        if taken := facts.get("engine", {}).get("engine"):
            serving = Serving.model_validate({**serving.model_dump(), "engine": taken})
        self.variant = settings.get("variant", "")
        sizes = dict.fromkeys((serving.instances, 1))
        self.banks = {
            f"{sessions} sessions": Bank(artifact, self.variant, serving, sessions)
            for sessions in sizes
        }
        encoder = artifact.text_encoder()
        self.rows: Rows = [
            encoder.input_ids(one, window) for one in encoder(texts) for window in one.windows
        ]
        self.texts = len(texts)

    def rates(self, batch: int, seconds: float) -> dict[str, float]:
        """Texts a second of each arrangement, `seconds` together."""
        part_s = seconds / len(self.banks)
        texts_a_row = self.texts / len(self.rows)
        return {
            name: texts_a_row * bank.rate(self.rows, batch, part_s)
            for name, bank in self.banks.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        engines = {bank.encoders[0].engine for bank in self.banks.values()}
        return {"variant": self.variant, "engine": ", ".join(sorted(engines))}
