"""`python -m multitask_export lint DIR [--json]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from multitask_export.lint.rule import ERROR
from multitask_export.lint.rules import Finding, lint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("repository", type=Path, metavar="DIR", help="Triton model repository")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the findings; 1 where one is an error, otherwise 0. Raises ConfigError as `lint`."""
    findings = lint(options.repository)
    errors = sum(finding.severity == ERROR for finding in findings)
    warnings = len(findings) - errors
    if options.json:
        print(_as_json(findings, errors, warnings))
    else:
        for one in findings:
            print(f"{one.severity} {one.path} [{one.rule}] {one.message}")
        print(f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}")
    return 1 if errors else 0


def _as_json(findings: Sequence[Finding], errors: int, warnings: int) -> str:
    value = {
        "findings": [asdict(finding) for finding in findings],
        "errors": errors,
        "warnings": warnings,
    }
    return json.dumps(value, ensure_ascii=False, indent=2)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
