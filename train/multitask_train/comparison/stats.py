"""Results of runs → mean, spread and paired difference from the baseline, for each cell."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from multitask_train.comparison.cells import JOINT, Cell

Results = Mapping[Cell, Mapping[int, dict[str, Any]]]
"""cell → seed → metrics of the finished run"""


@dataclass(frozen=True)
class Column:
    """One figure of a run. path: where it stands in the run's metrics, `*` being the split.

    better: 1 where more is better, -1 where less is, 0 where it is no merit. scale: from what the
    run says to what the table shows.
    """

    key: str
    title: str
    path: tuple[str, ...]
    better: int = 1
    scale: float = 100.0
    digits: int = 2

    def read(self, metrics: Mapping[str, Any], split: str) -> float | None:
        """The figure of one run; None where the run does not measure it."""
        value: Any = metrics
        for name in self.path:
            value = value.get(split if name == "*" else name)
            if value is None:
                return None
        return float(value)


COLUMNS = (
    Column("accuracy", "intent accuracy", ("*", "classification", "accuracy")),
    Column("macro_f1", "macro F1", ("*", "classification", "macro_f1")),
    Column("f1", "entity F1", ("*", "ner", "f1")),
    Column("exact_match", "exact match", ("*", "joint", "exact_match")),
    Column(
        "classification_calibration_error",
        "calibration error, intents",
        ("*", "classification", "calibration_error"),
        better=-1,
    ),
    Column(
        "ner_calibration_error",
        "calibration error, entities",
        ("*", "ner", "calibration_error"),
        better=-1,
    ),
    Column("trained_parameters", "trained parameters", ("parameters", "trained"), 0, 1, 0),
    Column("train_seconds", "seconds", ("train_seconds",), 0, 1, 0),
)


@dataclass(frozen=True)
class Summary:
    """A figure over the seeds, in the run's own unit.

    sd: sample standard deviation, None for one seed. difference: mean over the seeds that the
    baseline has too of the cell's figure less the baseline's with the same seed; difference_sd:
    sample standard deviation of those differences, None for one seed.
    """

    mean: float
    sd: float | None
    seeds: int
    difference: float | None
    difference_sd: float | None

    @property
    def clear(self) -> bool:
        """Whether the difference from the baseline is larger than its spread over the seeds."""
        if self.difference is None or self.difference_sd is None:
            return False
        return abs(self.difference) > self.difference_sd


Row = dict[str, Summary | None]
Table = dict[Cell, Row]


def tabulate(results: Results, split: str, baseline: Cell = JOINT) -> Table:
    """Each cell's summaries by column key."""
    values = {
        column.key: {cell: _values(column, of_seeds, split) for cell, of_seeds in results.items()}
        for column in COLUMNS
    }
    return {
        cell: {
            key: summarise(of_cells[cell], of_cells.get(baseline, {}))
            for key, of_cells in values.items()
        }
        for cell in results
    }


def summarise(values: Mapping[int, float], baseline: Mapping[int, float]) -> Summary | None:
    """Mean, spread and paired difference of a figure by seed; None where there is none."""
    if not values:
        return None
    pairs = [value - baseline[seed] for seed, value in values.items() if seed in baseline]
    return Summary(
        statistics.fmean(values.values()),
        _sd(list(values.values())),
        len(values),
        statistics.fmean(pairs) if pairs else None,
        _sd(pairs),
    )


def best_cells(table: Table, column: Column) -> set[Cell]:
    """Cells with the best mean of a column, if they differ clearly from the baseline."""
    means = {cell: one.mean for cell, row in table.items() if (one := row[column.key])}
    if not means or not column.better:
        return set()
    best = max(means.values(), key=lambda mean: mean * column.better)
    return {
        cell
        for cell, row in table.items()
        if (one := row[column.key]) and one.mean == best and one.clear
    }


def as_json(table: Table) -> dict[str, Any]:
    """The table as plain values, by name of cell."""
    return {
        cell.name: {key: asdict(one) if one else None for key, one in row.items()}
        for cell, row in table.items()
    }


def _values(column: Column, of_seeds: Mapping[int, dict[str, Any]], split: str) -> dict[int, float]:
    found = {seed: column.read(metrics, split) for seed, metrics in of_seeds.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _sd(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
