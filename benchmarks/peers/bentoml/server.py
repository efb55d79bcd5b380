"""A batching server with the same weights: BentoML with its adaptive batching.

    PYTHON benchmarks/peers/bentoml/server.py --checkpoint runs/demo --port 9000 --precision bf16

POST /predict {"texts": [text]} → [{"label", "score", "entities": [{"type", "text", "start", "end",
"score"}]}]: what BentoML batches are lists. It chooses its waits by itself: --batch-timeout has no
effect.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from settings import Settings


def main() -> None:
    """Serve until the process is ended."""
    settings = Settings.read(__doc__)
    settings.export()
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    folder = Path(__file__).resolve().parent
    # In this process's place, so that signals and the parent's watch reach the server itself.
    command = [
        sys.executable, "-m", "bentoml", "serve", "service:Multitask", "--working-dir", str(folder),
        "--host", "127.0.0.1", "--port", str(settings.port),
    ]  # fmt: skip
    os.execv(sys.executable, command)  # noqa: S606  no shell wanted


if __name__ == "__main__":
    main()
