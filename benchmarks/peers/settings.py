"""What every peer's server is told: the same options for all, so that none is tuned in secret.

    PYTHON benchmarks/peers/NAME/server.py --checkpoint runs/demo --port 9000 \\
        [--precision bf16] [--workers 2 --threads 1] [--max-batch 32] [--batch-timeout 0.002]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_VARIABLE = "PEER_SETTINGS"


@dataclass(frozen=True)
class Settings:
    """checkpoint: a training run's folder. port: of HTTP on the loopback address.

    precision: fp32 or bf16. workers: processes with a model each; threads: torch's in each of them.
    max_batch: requests in a batch; batch_timeout_s: how long the first of them waits for more.
    """

    checkpoint: str
    port: int
    precision: str = "fp32"
    workers: int = 1
    threads: int = 1
    max_batch: int = 32
    batch_timeout_s: float = 0.002

    @classmethod
    def read(cls, doc: str | None, precisions: Sequence[str] = ("fp32", "bf16")) -> Settings:
        """From the command line; as many threads as CPUs, shared by the workers, unless given."""
        parser = argparse.ArgumentParser(
            description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add = parser.add_argument
        add("--checkpoint", type=Path, required=True)
        add("--port", type=int, required=True)
        add("--precision", choices=precisions, default="fp32")
        add("--workers", type=int, default=1, help="processes with a model each [%(default)s]")
        add("--threads", type=int, default=0, help="in each of them (default: CPUs / workers)")
        add("--max-batch", type=int, default=32, help="requests in a batch [%(default)s]")
        add("--batch-timeout", type=float, default=0.002, help="seconds (default: %(default)s)")
        given = parser.parse_args()
        return cls(
            checkpoint=str(given.checkpoint.resolve()),
            port=given.port,
            precision=given.precision,
            workers=given.workers,
            threads=given.threads or max(1, len(os.sched_getaffinity(0)) // given.workers),
            max_batch=given.max_batch,
            batch_timeout_s=given.batch_timeout,
        )

    def export(self) -> None:
        """Hand the settings to the worker processes that this one starts."""
        os.environ[_VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def inherited(cls) -> Settings:
        """The settings in a worker process."""
        return cls(**json.loads(os.environ[_VARIABLE]))
