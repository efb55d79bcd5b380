"""The YAML header of a model card: what the Hub shows, filters and compares.

Its form is that of the Hub's specification (huggingface/hub-docs, modelcard.md). `model-index`
holds one split's metrics under the Hub's names of tasks and metrics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from multitask_train.data.hub import PREFIX

SPLITS = ("train", "dev", "test")
# The Hub's names of encoders that packages carry.
_HUB_NAMES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_SPLITS = {"dev": "validation"}
# The Hub's task → our task and its metrics: key, the Hub's metric id, its name on the page.
_METRICS = {
    "token-classification": (
        "ner",
        (
            ("f1", "f1", "Entity F1 (strict)"),
            ("precision", "precision", "Entity precision (strict)"),
            ("recall", "recall", "Entity recall (strict)"),
            ("token_accuracy", "accuracy", "Token accuracy"),
        ),
    ),
    "text-classification": (
        "classification",
        (("accuracy", "accuracy", "Accuracy"), ("macro_f1", "f1", "Macro F1")),
    ),
}


def card_header(
    name: str, settings: Mapping[str, Any], metrics: Mapping[str, Any] | None, split: str
) -> str:
    """YAML without its fences; metrics: those of `split`, None where it was not measured."""
    tasks = settings["data"].get("tasks", "both")
    trained = [hub for hub, (task, _) in _METRICS.items() if tasks in ("both", task)]
    results = eval_results(settings["data"][split], split, metrics)
    data = ModelCardData(
        license=settings["run"].get("license") or None,
        library_name="transformers",
        pipeline_tag=trained[0],
        tags=[*trained, "multi-task", "named-entity"],
        base_model=_base_model(settings["model"]["encoder"]),
        datasets=_datasets(settings["data"]) or None,
        metrics=list(dict.fromkeys(one.metric_type for one in results)) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def eval_results(
    sources: Sequence[str], split: str, metrics: Mapping[str, Any] | None
) -> list[EvalResult]:
    """A result for each metric of a split: shares, rounded to four places.

    Several sources are measured together, so that their names are joined.
    """
    names = [_source_name(source) for source in sources]
    return [
        EvalResult(
            task_type=task_type,
            dataset_type=names[0] if len(names) == 1 else _slug("-".join(names)),
            dataset_name=" + ".join(names),
            dataset_split=_HUB_SPLITS.get(split, split),
            metric_type=metric_type,
            metric_name=metric_name,
            metric_value=round(metrics[task][key], 4),
        )
        for task_type, (task, columns) in _METRICS.items()
        if metrics and metrics[task] is not None
        for key, metric_type, metric_name in columns
    ]


def _base_model(encoder: str) -> str | None:
    """The encoder's id on the Hub; None for a folder, which the Hub does not know."""
    name = _HUB_NAMES.get(encoder, encoder)
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _datasets(data: Mapping[str, Any]) -> list[str]:
    """Ids of the corpora that come from the Hub, each once."""
    sources = [source for split in SPLITS for source in data[split]]
    return list(dict.fromkeys(_source_name(one) for one in sources if one.startswith(PREFIX)))


def _source_name(source: str) -> str:
    """What a source is called: the hub id, or the folder or file without its split and suffixes."""
    if source.startswith(PREFIX):
        return source.removeprefix(PREFIX).partition("?")[0]
    path = PurePath(source)
    name = path.name.partition(".")[0]
    if name in (*SPLITS, "valid") and path.parent.name:
        name = path.parent.name
    return _slug(name)


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name.lower()).strip("-") or "data"
