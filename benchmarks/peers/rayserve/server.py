"""A batching server with the same weights: Ray Serve with its dynamic request batching.

    PYTHON benchmarks/peers/rayserve/server.py --checkpoint runs/demo --port 9000 --precision bf16

POST /predict {"text": …} → {"label", "score", "entities": [{"type", "text", "start", "end",
"score"}]}. A worker is a replica; Ray's own processes run beside them.
"""

# ruff: noqa: ANN401  Ray hands over what it has

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Read when Ray is imported, and by the processes that it starts.
os.environ.update(
    PYTHONPATH=sys.path[0],
    RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
    RAY_SERVE_LOG_TO_STDERR="0",
    RAY_worker_niceness="0",  # beside what the whole server has; Ray would add 15
    RAY_USAGE_STATS_ENABLED="0",
)

import ray
from model import TwoHeads
from ray import serve
from settings import Settings
from starlette.requests import Request
from starlette.responses import JSONResponse

# Requests that a replica takes at once: more than any number of callers, so that none waits outside
# the batching queue.
_ONGOING = 1024


def build(settings: Settings) -> Any:
    """The application."""

    @serve.deployment(
        num_replicas=settings.workers,
        max_ongoing_requests=_ONGOING,
        ray_actor_options={"num_cpus": settings.threads},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    class Multitask:
        """Batches of texts → label and entities of each."""

        def __init__(self) -> None:
            self.model = TwoHeads(settings)

        @serve.batch(
            max_batch_size=settings.max_batch, batch_wait_timeout_s=settings.batch_timeout_s
        )
        async def answer(self, texts: list[str]) -> list[dict[str, Any]]:
            """Answer a batch; in a thread, so that requests are taken meanwhile."""
            return await asyncio.to_thread(self.model, texts)

        async def __call__(self, request: Request) -> JSONResponse:
            """One request; GET asks whether the model is there."""
            if request.method == "GET":
                return JSONResponse({"status": "ok"})
            return JSONResponse(await self.answer((await request.json())["text"]))

    return Multitask.bind()


def main() -> None:
    """Serve until the process is ended."""
    settings = Settings.read(__doc__)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=settings.workers * settings.threads,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        # After Ray, which sets a handler of its own that dumps its stack.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": settings.port})
            serve.run(build(settings), route_prefix="/")
            signal.pause()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
