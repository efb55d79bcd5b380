"""What got better or worse between two result files, beyond noise.

    python -m multitask_benchmarks compare before.json after.json --fail-on worse

Figures of the same scenario, subject, point and metric are compared. Machines drift between runs by
more than most changes are worth, so where a scenario has a baseline subject every round's value is
first divided by the baseline's of the same round (marked "relative"). The baseline itself, and what
has none, is compared as it stands, with the wider --absolute threshold: a change of the baseline
shows there alone. A change is called where its whole 95 % bootstrap interval lies beyond the
threshold; a subject's points that both files have are also taken together, as their geometric mean
in each round.

Rounds that scatter widely hide changes: measure more of them. Simulated, 4,000 unchanged figures
each: of 5 rounds that scatter by 2, 5 or 10 % (standard deviation) 0.0, 0.3 and 1.0 % are called,
of 3 rounds 0.0, 1.4 and 3.9 %; a slowdown of 20 % is called in 100, 85 and 32 % with 5 rounds, and
more often where several points are taken together.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from multitask_benchmarks.comparison.judge import BETTER, SAME, UNCLEAR, WORSE, Thresholds
from multitask_benchmarks.comparison.match import Figure, compare_files, differences
from multitask_benchmarks.report import console, figures, make_table
from multitask_benchmarks.results import ResultFile, read_results
from multitask_core.errors import ConfigError

CALLED = 3
# A ratio that moved by more between two runs has changed, or was measured too noisily.
MOVED = 0.10
_VERDICTS = (WORSE, BETTER, SAME, UNCLEAR)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `compare`."""
    add = parser.add_argument
    add("before", type=Path, help="result file")
    add("after", type=Path, help="result file that is compared with it")
    add("--scenario", nargs="+", default=[], metavar="NAME", help="these alone (default: all)")
    defaults = Thresholds()
    add("--threshold", type=float, default=defaults.relative,
        help="smallest change worth a call, against the baseline [%(default)s]")  # fmt: skip
    add("--absolute", type=float, default=defaults.absolute,
        help="the same for what has no baseline [%(default)s]")  # fmt: skip
    add("--fail-on", nargs="+", default=[],
        choices=("worse", "worse-relative", "differences"),
        help=f"exit with status {CALLED} where there is one: a figure that got worse; one that got "
        "worse against its baseline, whatever the machine as a whole did; another machine, model "
        "or setting, or figures that one file lacks")  # fmt: skip
    add("--all", action="store_true", help="show every figure, not only what changed")


def execute(options: argparse.Namespace) -> int:
    """Compare; returns the exit status."""
    thresholds = _thresholds(options)
    before, after = (_read(path, options.scenario) for path in (options.before, options.after))
    found = compare_files(before, after, thresholds)
    other = differences(before, after)
    if not found:
        raise ConfigError(
            f"{options.before} and {options.after} have no figure in common: "
            + ("; ".join(other) or "neither has figures")
        )
    out = console()
    out.print(figures_table(found, thresholds, everything=options.all))
    if noisy := too_noisy(found):
        out.print(noisy, markup=False)
    for line in other:
        out.print(f"not the same: {line}", markup=False)
    counts = Counter(one.change.verdict for one in found)
    print(json.dumps(_line(found, counts, other), ensure_ascii=False, default=str))
    worse = [one.change for one in found if one.change.verdict == WORSE]
    failures = {
        "worse": bool(worse),
        "worse-relative": any(change.relative for change in worse),
        "differences": bool(other),
    }
    return CALLED if any(failures[one] for one in options.fail_on) else 0


def figures_table(
    found: Sequence[Figure], thresholds: Thresholds, *, everything: bool = False
) -> Table:
    """What changed, the worst first."""
    shown = [one for one in found if everything or one.change.verdict in (WORSE, BETTER)]
    shown.sort(key=lambda one: (_VERDICTS.index(one.change.verdict), one.scenario, one.subject))
    rows = [
        (
            one.change.verdict, one.scenario, one.subject,
            ", ".join(f"{name} {value}" for name, value in one.point.items()), one.metric,
            figures(one.change.before), figures(one.change.after),
            f"{_percent(one.change.ratio)} \\[{_percent(one.change.low)}, "
            f"{_percent(one.change.high)}]", "relative" if one.change.relative else "absolute",
        )
        for one in shown
    ]  # fmt: skip
    counts = Counter(one.change.verdict for one in found)
    counted = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _VERDICTS)
    columns = ("verdict", "scenario", "subject", "point", "metric", "before", "after",
        "change [95 %]", "judged")  # fmt: skip
    caption = (
        f"{counted}. Relative: each round divided by the baseline's of the same round, called "
        f"beyond {thresholds.relative:.0%}; absolute: as it stands, beyond "
        f"{thresholds.absolute:.0%}"
    )
    return make_table(f"{len(found)} figures compared", columns, rows, caption)


def too_noisy(found: Sequence[Figure]) -> str:
    """What to say where rounds scatter so widely that figures tell nothing, or "".

    That is where most are within noise, or a ratio to the baseline moved by more than `MOVED` and
    still is.
    """
    unclear = [one for one in found if one.change.verdict == UNCLEAR]
    moved = sum(abs(one.change.ratio - 1) > MOVED for one in unclear if one.change.relative)
    remedy = "; measure both again with more rounds, when nothing else runs on the machine"
    if len(unclear) > len(found) / 2:
        return f"too noisy: {len(unclear)} of {len(found)} figures are within noise{remedy}"
    if moved:
        ratios = sum(one.change.relative for one in found)
        return (
            f"too noisy: {moved} of {ratios} ratios moved by more than {MOVED:.0%}, within noise"
            f"{remedy}"
        )
    return ""


def _percent(ratio: float) -> str:
    return f"{ratio - 1:+.1%}"


def _line(found: Sequence[Figure], counts: Counter[str], other: Sequence[str]) -> dict[str, Any]:
    """The line for programs."""
    called = {
        verdict: [
            {**asdict(one), "change": _rounded(asdict(one.change))}
            for one in found
            if one.change.verdict == verdict
        ]
        for verdict in (WORSE, BETTER)
    }
    return {
        "counts": {one: counts[one] for one in _VERDICTS},
        "too_noisy": bool(too_noisy(found)),
        **called,
        "differences": list(other),
    }


def _rounded(change: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in change.items()
    }


def _thresholds(options: argparse.Namespace) -> Thresholds:
    for name in ("threshold", "absolute"):
        if not 0 < getattr(options, name) < 1:
            raise ConfigError(
                f"--{name} {getattr(options, name)}: it must lie between 0 and 1; 0.05 is 5 %"
            )
    return Thresholds(options.threshold, options.absolute)


def _read(path: Path, names: Sequence[str]) -> ResultFile:
    file = read_results(path)
    if unknown := [name for name in names if name not in file.scenarios]:
        known = ", ".join(file.scenarios)
        raise ConfigError(f"{path} has no scenario {unknown[0]!r}; it has: {known}")
    chosen = {name: one for name, one in file.scenarios.items() if not names or name in names}
    return ResultFile(file.model, chosen)
