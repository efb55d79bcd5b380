"""Hugging Face hub datasets → examples, through the `datasets` library.

A source reads `hub:OWNER/NAME?split=train&config=…&text=…&label=…&tokens=…&tags=…`: everything
after the question mark is optional and names the split, the configuration and the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from multitask_core.errors import DataError
from multitask_train.data.examples import Example
from multitask_train.data.readers import example_from_record, located

PREFIX = "hub:"
# Column names in common use, tried in this order.
COLUMNS = {
    "text": ("text", "sentence", "utterance"),
    "label": ("label", "intent", "labels"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "slots"),
}


def read_hub(source: str, split: str) -> Iterator[Example]:
    """Load one split; `split` is used where the source names none. Raises DataError."""
    name, _, query = source.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query))
    unknown = set(options) - {"split", "config", *COLUMNS}
    if unknown or not name:
        raise DataError(
            f"{source}: unknown option {sorted(unknown)}; allowed are split, config, "
            f"{', '.join(COLUMNS)}"
        )
    rows = _load(name, options.get("config"), options.get("split", split))
    columns = {role: _column(rows.column_names, options, role) for role in COLUMNS}
    for number, row in enumerate(rows, 1):
        with located(source, number):
            yield example_from_record(_record(row, columns, rows.features))


def _load(name: str, config: str | None, split: str) -> Any:  # noqa: ANN401  datasets is untyped
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split)
    except Exception as error:  # the library raises many unrelated types
        raise DataError(
            f"cannot load the hub dataset {name!r} (config {config!r}, split {split!r}): {error}"
        ) from error


def _column(present: list[str], options: Mapping[str, str], role: str) -> str | None:
    if role in options:
        if options[role] not in present:
            raise DataError(f"there is no column {options[role]!r}; there are {present}")
        return options[role]
    return next((name for name in COLUMNS[role] if name in present), None)


def _record(
    row: Mapping[str, Any], columns: Mapping[str, str | None], features: Mapping[str, Any]
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for role, column in columns.items():
        if column is not None:
            record[role] = _named(row[column], features[column])
    tags = record.get("tags")
    if isinstance(tags, list) and None in tags:
        raise DataError(
            "a token has no tag (none, or class id -1); each token needs one, such as O"
        )
    if "tokens" in record:
        record.pop("text", None)  # tokens need not spell a text column of the hub
    return record


def _named(value: object, feature: object) -> object:
    """Turn class ids into their names, in lists too; -1, the hub's "unlabelled", into None."""
    inner = getattr(feature, "feature", None)
    if isinstance(value, list):
        return [_named(item, inner) for item in value]
    if value is None or not hasattr(feature, "int2str"):
        return value
    try:
        return None if value == -1 else feature.int2str(value)
    except ValueError as error:
        raise DataError(f"class id {value!r} is out of range: {error}") from None
