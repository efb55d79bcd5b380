"""Hugging Face hub datasets → examples, through the `datasets` library.

A source reads `hub:OWNER/NAME?split=train&config=…&text=…&label=…&tokens=…&tags=…`: everything
after the question mark is optional and names the split, the configuration and the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from multitask_core.errors import DataError
from multitask_train.data.examples import Located, Read, attempt
from multitask_train.data.readers import located_record

PREFIX = "hub:"
# What the hub calls a split, tried in this order.
SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
# Column names in common use, tried in this order.
COLUMNS = {
    "text": ("text", "sentence", "utterance"),
    "label": ("label", "intent", "labels"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "slots"),
}


def read_hub(source: str, split: str) -> Iterator[Read]:
    """Load one split; `split` is used where the source names none. Raises DataError."""
    name, options = _parsed(source)
    config = options.get("config")
    wanted = options.get("split") or hub_splits(source).get(split, split)
    rows = _loaded("load_dataset", name, config, split=wanted)
    columns = {role: _column(rows.column_names, options, role) for role in COLUMNS}
    for number, row in enumerate(rows, 1):
        place = f"{source}:{number}"
        yield attempt(place, _located_row, place, row, columns, rows.features)


def hub_splits(source: str) -> dict[str, str]:
    """Those of train, dev and test that a dataset has → its own names for them."""
    name, options = _parsed(source)
    names = _loaded("get_dataset_split_names", name, options.get("config"))
    found = {split: [one for one in ours if one in names] for split, ours in SPLITS.items()}
    return {split: first[0] for split, first in found.items() if first}


def named_split(source: str) -> str | None:
    """The split that a source names itself."""
    return _parsed(source)[1].get("split")


def _parsed(source: str) -> tuple[str, dict[str, str]]:
    name, _, query = source.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query))
    unknown = set(options) - {"split", "config", *COLUMNS}
    if unknown or not name:
        raise DataError(
            f"{source}: unknown option {sorted(unknown)}; allowed are split, config, "
            f"{', '.join(COLUMNS)}"
        )
    return name, options


def _loaded(function: str, name: str, config: str | None, **options: str) -> Any:  # noqa: ANN401  datasets is untyped
    import datasets

    try:
        return getattr(datasets, function)(name, config, **options)
    except Exception as error:  # the library raises many unrelated types
        what = "".join(f", {key} {value!r}" for key, value in options.items())
        raise DataError(
            f"cannot load the hub dataset {name!r} (config {config!r}{what}): {error}"
        ) from error


def _located_row(
    place: str,
    row: Mapping[str, Any],
    columns: Mapping[str, str | None],
    features: Mapping[str, Any],
) -> Located:
    return located_record(place, _record(row, columns, features))


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
    # Tokens need not spell a text column of the hub; without them tags belong to something else.
    record.pop("text" if "tokens" in record else "tags", None)
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
