"""The model card of a checkpoint, README.md in Hub form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from multitask_core.labels import LabelSchema

_HEADER = "| split | accuracy | entity F1 | token accuracy | exact match |"
_USE = """```python
from pathlib import Path

from multitask_train.checkpoint import load_pipeline

load_pipeline(Path("this-folder")).predict(["…"])
```"""


def model_card(
    name: str, schema: LabelSchema, settings: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    """Markdown with Hub metadata: base model, labels, data, metrics, use."""
    encoder = settings["model"]["encoder"]
    header = {
        "library_name": "transformers",
        "pipeline_tag": "token-classification",
        "tags": ["text-classification", "token-classification", "multi-task", "named-entity"],
        "base_model": encoder,
    }
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {name}",
        f"One `{encoder}` encoder with a sentence head ({len(schema.classes)} classes, `[CLS]`) "
        f"and a token head ({len(schema.entity_types)} entity types, BIO), trained together.",
        "## Metrics",
        _metrics_table(metrics),
        "## Data",
        _listing({split: ", ".join(settings["data"][split]) for split in ("train", "dev", "test")}),
        "## Labels",
        _listing(
            {"classes": ", ".join(schema.classes), "entity types": ", ".join(schema.entity_types)}
        ),
        "## Use",
        _USE,
        "## Limits",
        f"Texts are read in windows of {settings['model']['max_length']} word pieces that overlap "
        f"by {settings['model']['stride']}; an entity is found within one window. An entity covers "
        "whole words. Only the labels above can be answered: there is no class for other text. The "
        "scores are not calibrated. `samples.jsonl` holds development sentences for the export's "
        "comparison: look at it before you publish the folder.",
    ]
    return "\n\n".join(sections) + "\n"


def _metrics_table(metrics: Mapping[str, Any]) -> str:
    rows = [_HEADER, "|---|---|---|---|---|"]
    for split, values in metrics.items():
        if isinstance(values, Mapping) and "ner" in values:
            cells = [
                _percent(values[task], key)
                for task, key in (
                    ("classification", "accuracy"),
                    ("ner", "f1"),
                    ("ner", "token_accuracy"),
                    ("joint", "exact_match"),
                )
            ]
            rows.append(f"| {split} ({values['examples']}) | {' | '.join(cells)} |")
    return "\n".join(rows)


def _percent(values: Mapping[str, float] | None, key: str) -> str:
    return "–" if values is None else f"{100 * values[key]:.2f}"


def _listing(items: Mapping[str, str]) -> str:
    return "\n".join(f"- {key}: {value or '–'}" for key, value in items.items())
