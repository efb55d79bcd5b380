"""One page of everything that was measured, and the README's tables.

    python -m multitask_benchmarks report benchmarks/results/*.json --output report.html
    python -m multitask_benchmarks report FILE --scenario throughput --markdown
    python -m multitask_benchmarks report FILE --scenario throughput --readme README.md

The page needs no network: plots are SVG inside it. --markdown prints tables to standard output;
--readme writes them between `<!-- results:begin -->` and `<!-- results:end -->` of a file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from multitask_benchmarks.reporting.markdown import markdown, rewrite
from multitask_benchmarks.reporting.sections import page
from multitask_benchmarks.results import ResultFile, read_results
from multitask_core.errors import ConfigError
from multitask_core.files import write_text

PAGE = Path("report.html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `report`."""
    add = parser.add_argument
    add("results", type=Path, nargs="+", metavar="RESULT", help="result files")
    add("--scenario", nargs="+", default=[], metavar="NAME", help="these alone, in this order")
    add("--output", type=Path, metavar="HTML",
        help=f"the page (default: {PAGE}, none with --markdown or --readme)")  # fmt: skip
    add("--markdown", action="store_true", help="print tables, nothing else")
    add("--readme", type=Path, metavar="FILE", help="write the tables between its markers")


def execute(options: argparse.Namespace) -> int:
    """Write what was asked for; returns the exit status."""
    files = {path: read_results(path) for path in options.results}
    _check(files, options.scenario)
    if options.markdown:
        print(markdown(options.results, options.scenario, Path()))
        return 0
    written = []
    if options.readme:
        rewrite(options.readme, options.results, options.scenario)
        written.append(str(options.readme))
    if options.output or not options.readme:
        target = options.output or PAGE
        write_text(target, page(files, options.scenario))
        written.append(str(target))
    print(json.dumps({"files": written}, ensure_ascii=False))
    return 0


def _check(files: dict[Path, ResultFile], names: list[str]) -> None:
    known = sorted({name for file in files.values() for name in file.scenarios})
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no file has a scenario {unknown[0]!r}; they have: {', '.join(known)}")
