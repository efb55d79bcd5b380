"""Record what the export measured on an artifact's variants, and print it as a Markdown table.

python -m multitask_benchmarks variants --artifact artifacts/demo
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitask_benchmarks.recording import (
    add_result_arguments,
    make_record,
    scenario_name,
    write_record,
)
from multitask_core import manifest
from multitask_core.artifact import KIND

SCENARIO = "export"
_COLUMNS = (
    "variant", "size", "operators", "largest difference", "labels changed",
    "entities changed", "accuracy", "entity F1",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `variants`."""
    add = parser.add_argument
    add("--artifact", type=Path, required=True, help="exported artifact")
    add_result_arguments(parser)


def execute(options: argparse.Namespace) -> int:
    """Write the record and print the table; returns the exit status."""
    exported = manifest.verify(options.artifact, KIND)
    details = {
        "artifact": exported.identity,
        "export": exported.config,
        "tools": exported.tools,
        "files": {name: one.model_dump() for name, one in exported.files.items()},
        "report": exported.report,
    }
    path = write_record(options, make_record(options, details=details), SCENARIO)
    print(table(exported.report))
    line = {"scenario": scenario_name(options, SCENARIO), "file": str(path)}
    print(json.dumps({**line, "variants": list(exported.report)}))
    return 0


def table(report: Mapping[str, Mapping[str, Any]]) -> str:
    """One row for each variant, the refused ones with their reason."""
    from multitask_export.parity import measured  # loads torch, which --help does without

    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
        *(_row(name, figures) for name, figures in measured(report).items()),
    ]
    return "\n".join(lines)


def _row(name: str, figures: Mapping[str, Any]) -> str:
    if "refused" in figures:
        return f"| {name} | refused: {figures['refused']} |{' |' * (len(_COLUMNS) - 2)}"
    from multitask_export.parity import judged as judging  # loads torch, which --help does without

    judged = judging(figures)
    cells = (
        name,
        f"{figures['bytes'] / 1e6:.1f} MB",
        f"{sum(figures['operators'].values()):,}",
        f"{max(judged['class_difference'], judged['token_difference']):.1e}",
        f"{judged['labels_changed']} of {judged['sentences']}",
        f"{judged['spans_changed']} of {judged['spans']}",
        _change(judged["accuracy"]),
        _change(judged["f1"]),
    )
    return f"| {' | '.join(cells)} |"


def _change(change: Mapping[str, float] | None) -> str:
    if change is None:
        return "–"
    return f"{change['after']:.2f} ({change['after'] - change['before']:+.2f})"
