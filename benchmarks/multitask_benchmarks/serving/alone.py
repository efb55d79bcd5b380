"""One server of ours by itself, for scenarios that compare it with nobody; its answers checked."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multitask_benchmarks.serving.served import Served, serve_triton
from multitask_benchmarks.serving.servers import Server, check
from multitask_benchmarks.subjects import open_checkpoint


@contextmanager
def serve_alone(
    name: str, repository: Path, texts: Sequence[str], options: argparse.Namespace
) -> Iterator[tuple[Served, dict[str, Any]]]:
    """Serve a repository; yields the server, and what of it belongs into the result's details.

    With --checkpoint its answers are compared before anything is timed; raises ParityError for one
    that differs, unless that is allowed.
    """
    reference = open_checkpoint(options.checkpoint).predict(texts) if options.checkpoint else None
    with serve_triton(name, repository) as served:
        agreement = {}
        if reference is not None:
            lenient = options.allow_different
            agreement = check([Server(served, texts)], texts, reference, allow_different=lenient)
        yield served, {"subject": served.facts, "agreement": agreement}
