"""`python -m multitask_export --checkpoint DIR --output DIR --repository DIR`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_core.errors import MultiTaskError
from multitask_export.export import export_artifact
from multitask_export.repository import write_repository


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        artifact = export_artifact(
            options.checkpoint,
            options.output,
            variants=options.variants.split(",") if options.variants else (),
            default=options.variant,
            data=options.data,
        )
        if options.repository:
            write_repository(artifact, options.repository, options.version)
            logging.info("model repository: %s, version %d", options.repository, options.version)
    except MultiTaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m multitask_export",
        description="A checkpoint → ONNX graphs → a Triton model repository. Every graph is "
        "compared with the checkpoint (names, axes, shapes, values, then answers on real "
        "sentences) and one that differs by more than its budget is not written. When that is one "
        "you named, the one that is served, or plain fp32, nothing is written and the exit status "
        "is 1.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="folder written by multitask_train fit")
    add("--output", type=Path, required=True, help="folder of the artifact; replaced as a whole")
    add("--repository", type=Path, help="Triton model repository to write; without it none is")
    add("--version", type=int, default=1, help="version folder in the repository [%(default)s]")
    add(
        "--variants",
        default="",
        help="graphs to write, separated by commas: fp32, fp32-fused, int8 [all that pass]",
    )
    add("--variant", default="", help="the graph that is served [fp32-fused]")
    add("--data", default="", help="labelled text for the comparison [the checkpoint's samples]")
    return parser


if __name__ == "__main__":
    sys.exit(main())
