"""`python -m multitask_export --checkpoint DIR --output DIR --repository DIR`, and its helpers
`python -m multitask_export lint DIR` and `python -m multitask_export engine …`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from multitask_core.config import describe, load
from multitask_core.errors import MultiTaskError
from multitask_core.serving import Serving
from multitask_export import engine, lint
from multitask_export.variants import TARGETS, VARIANTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parse([*(sys.argv[1:] if arguments is None else arguments)])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int = options.run(options)
    except MultiTaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def _export(options: argparse.Namespace) -> int:
    # Here, because the helpers run where torch is not installed.
    from multitask_export.export import export_artifact, parse_allow, parse_serve
    from multitask_export.repository import refuse_published, write_repository

    if options.repository:  # before minutes of work
        refuse_published(options.repository)
    artifact = export_artifact(
        options.checkpoint,
        options.output,
        variants=[name.strip() for name in options.variants.split(",") if name.strip()],
        serve=parse_serve(options.variant),
        data=options.data,
        allow=parse_allow(options.allow),
        serving=_serving(options.set),
    )
    if options.repository:
        write_repository(artifact, options.repository, options.version)
        logging.info("model repository: %s, version %d", options.repository, options.version)
    return 0


def _serving(settings: Sequence[str]) -> Serving:
    return load(Serving, None, [f"--{setting}" for setting in settings])


_HELPERS = {
    "lint": (lint, "find what Triton would ignore, or refuse only in production"),
    "engine": (engine, "build a TensorRT plan, inside the Triton container on its GPU"),
}


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Export is the command without a name; the helpers have theirs."""
    if arguments and arguments[0] in _HELPERS:
        name = arguments[0]
        module, title = _HELPERS[name]
        parser = argparse.ArgumentParser(
            prog=f"python -m multitask_export {name}",
            description=f"{title[0].upper()}{title[1:]}.",
        )
        module.add_arguments(parser)
        parser.set_defaults(run=module.run)
        return parser.parse_args(arguments[1:])
    return _export_parser().parse_args(arguments)


def _export_parser() -> argparse.ArgumentParser:
    width = max(map(len, VARIANTS))
    parser = argparse.ArgumentParser(
        prog="python -m multitask_export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A checkpoint → ONNX graphs → a Triton model repository.\n\n"
        "Every graph goes through the gates: names, axes, operators and precision; values on\n"
        "sentences of all lengths; accuracy and entity F1. One that fails is not written. When it\n"
        "is one you named, or plain fp32, nothing is written and the exit status is 1.",
        epilog="variants:\n"
        + "".join(f"  {one.name:{width}}  {one.reason}\n" for one in VARIANTS.values())
        + "\ntargets and what they serve, the first that passes:\n"
        + "".join(f"  {name:{width}}  {', '.join(names)}\n" for name, names in TARGETS.items())
        + "\nsettings of the served text model:\n"
        + "".join(f"{line}\n" for line in describe(Serving))
        + "\nhelpers (each has its own --help):\n"
        + "".join(f"  {name:{width}}  {title}\n" for name, (_, title) in _HELPERS.items()),
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="folder written by multitask_train fit")
    add("--output", type=Path, required=True, help="folder of the artifact; replaced as a whole")
    add("--repository", type=Path, help="Triton model repository to write; without it none is")
    add("--version", type=int, default=1, help="version folder in the repository [%(default)s]")
    add("--variants", default="", help="graphs to write, separated by commas [all that pass]")
    add(
        "--variant",
        action="append",
        default=[],
        metavar="[TARGET=]NAME",
        help="the graph that a target serves, or that the CPU targets serve; can be repeated",
    )
    add("--data", default="", help="labelled text for the gates [the checkpoint's samples]")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="VARIANT=REASON",
        help="write a variant although it fails its budget; the reason lands in the manifest",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the served text model, listed below; can be repeated",
    )
    parser.set_defaults(run=_export)
    return parser


if __name__ == "__main__":
    sys.exit(main())
