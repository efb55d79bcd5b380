"""The model card of a checkpoint, README.md in Hub form: how good it is, how made, its limits.

The metrics in its header are those of the test split, or of dev without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from multitask_core.labels import LabelSchema
from multitask_train.card_header import SPLITS, card_header
from multitask_train.data.features import TASKS
from multitask_train.data.hub import PREFIX

_COLUMNS = (
    ("accuracy", "classification", "accuracy"),
    ("macro F1", "classification", "macro_f1"),
    ("entity F1", "ner", "f1"),
    ("precision", "ner", "precision"),
    ("recall", "ner", "recall"),
    ("token accuracy", "ner", "token_accuracy"),
    ("exact match", "joint", "exact_match"),
    ("label calibration error", "classification", "calibration_error"),
    ("entity calibration error", "ner", "calibration_error"),
)
_MEASURES = """All in percent. Macro F1: mean over classes. An entity counts where span and type are
exactly gold's (seqeval). Token accuracy: words with the right BIO tag. Exact match: sentences with
the right label and all entities right. Calibration error: mean distance between a score and the
share that is right, in 15 bins."""
_PICTURES = {
    "curves.png": "Losses, dev metrics, weights of the tasks and learning rate over the updates",
    "confusion.png": "Gold labels against predicted ones",
    "entity_f1.png": "Strict F1 of every entity type",
    "reliability.png": "Share of right answers for each bin of their scores",
}
_USE = """```python
from pathlib import Path

from multitask_train.checkpoint import load_pipeline

load_pipeline(Path("this-folder")).predict(["…"])
```"""


def model_card(
    name: str,
    schema: LabelSchema,
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    figures: Iterable[Path] = (),
    environment: Mapping[str, Any] | None = None,
) -> str:
    """Markdown with Hub metadata.

    settings: those of the run as plain values. metrics: the run's result, see train/README.md.
    figures: pictures that stand in the same folder. environment: see environment.py.
    """
    split = "test" if metrics.get("test") else "dev"
    sections = [
        f"---\n{card_header(name, settings, metrics.get(split), split)}\n---",
        f"# {name}",
        _summary(schema, settings),
        "## Metrics",
        _metrics_table(metrics),
        _MEASURES,
        *_types_table(metrics.get(split), split),
        *_pictures(figures, split),
        "## Training",
        _listing(_training(settings, metrics)),
        "## Scores",
        _scores(settings, metrics),
        "## Data",
        _listing({one: ", ".join(map(shown, settings["data"][one])) for one in SPLITS}),
        "## Labels",
        _listing(
            {"classes": ", ".join(schema.classes), "entity types": ", ".join(schema.entity_types)}
        ),
        "## Use",
        _USE,
        "## Limits",
        _limits(settings),
        "## Licence",
        _licence(settings),
        *_made_with(environment),
    ]
    return "\n\n".join(sections) + "\n"


def shown(source: str) -> str:
    """A source or an encoder without the folders it stands in: a card travels, paths stay."""
    path = PurePath(source)
    if source.startswith(PREFIX) or not (path.is_absolute() or ".." in path.parts):
        return source
    return "/".join(path.parts[-2:] if path.suffix else path.parts[-1:])


def _summary(schema: LabelSchema, settings: Mapping[str, Any]) -> str:
    trained = {
        "classification": "only the sentence head is trained: its entities mean nothing",
        "ner": "only the token head is trained: its labels mean nothing",
    }.get(settings["data"].get("tasks", "both"), "trained together")
    return (
        f"One `{shown(settings['model']['encoder'])}` encoder with a sentence head "
        f"({len(schema.classes)} classes, `[CLS]`) and a token head ({len(schema.entity_types)} "
        f"entity types, BIO), {trained}."
    )


def _metrics_table(metrics: Mapping[str, Any]) -> str:
    rows = [["split", *(title for title, _, _ in _COLUMNS)]]
    for split in ("dev", "test"):
        if values := metrics.get(split):
            cells = [_percent(values[task], key) for _, task, key in _COLUMNS]
            rows.append([f"{split} ({values['examples']})", *cells])
    return _table(rows)


def _types_table(values: Mapping[str, Any] | None, split: str) -> list[str]:
    if not values or not values["ner"] or not values["ner"].get("types"):
        return []
    rows = [["entity type", "precision", "recall", "F1", "entities"]]
    for name, one in values["ner"]["types"].items():
        shares = [_percent(one, key) for key in ("precision", "recall", "f1")]
        rows.append([name, *shares, f"{one['support']:,}"])
    return [f"### Entity types ({split})", _table(rows)]


def _pictures(figures: Iterable[Path], split: str) -> list[str]:
    pictures = []
    for path in figures:
        name = PurePath(path).name
        alt = _PICTURES.get(name, name)
        pictures.append(f"![{alt if name == 'curves.png' else f'{alt} ({split})'}]({name})")
    return ["### Figures", *pictures] if pictures else []


def _training(settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, str]:
    optim, loss = settings["optim"], settings["loss"]
    share = metrics.get("parameters")
    facts = {
        "strategy": optim.get("strategy"),
        "loss balancer": loss.get("balancer"),
        "heads trained": settings["data"].get("tasks"),
        "schedule of batches": settings["data"].get("schedule"),
        "started from": _started_from(settings["model"].get("start_from") or ()),
        "letter case": "kept" if settings["model"].get("keep_case") else None,
        "taught by": ", ".join(
            f"{shown(name)} ({task})" for task in TASKS for name in loss.get(f"{task}_teacher", ())
        )
        or None,
        "share of the teacher beside labels": loss.get("teacher_share") or None,
        "parameters trained": share and f"{share['trained']:,} of {share['total']:,}",
        "epochs": _epochs(optim["epochs"], metrics, settings["run"].get("best_metric", "mean")),
        "updates": metrics.get("updates"),
        "batch size": f"{optim['batch_size']} a process, "
        f"{optim.get('accumulation', 1)} accumulated",
        "learning rates": f"encoder {optim['learning_rate']:g}, heads "
        f"{optim['head_learning_rate']:g}",
        "moving average of the weights": optim.get("ema_decay") or None,
        "precision": {"no": "fp32"}.get(optim["precision"], optim["precision"]),
        "seed": settings["run"]["seed"],
        "seconds": metrics.get("train_seconds"),
        "seconds of asking teachers, on top": metrics.get("teacher_seconds") or None,
        "tokens/s": metrics.get("tokens_per_s"),
    }
    return {key: str(value) for key, value in facts.items() if value is not None}


def _epochs(most: int, metrics: Mapping[str, Any], metric: str) -> str:
    if not most:
        return "0: what it started from, not trained further"
    best = metrics.get("epoch", "–")
    if best == 0:
        return f"{most} at most, none of them better by dev {metric} than what it started from"
    return f"{most} at most, best: {best} by dev {metric}"


def _started_from(checkpoints: Sequence[str]) -> str | None:
    names = ", ".join(map(shown, checkpoints))
    return f"the mean weights of {names}" if len(checkpoints) > 1 else names or None


def _scores(settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    found = metrics.get("temperatures", {})
    fitted = {head: value for head, value in found.items() if value != 1}
    if not settings["run"].get("calibrate") or not fitted:
        return (
            "The scores are softmax values that were not calibrated: a score of 0.9 need not be "
            "right nine times in ten. The calibration errors above say how far off they are."
        )
    heads = {"classification": "sentence head", "ner": "token head"}
    named = ", ".join(f"{heads[head]} T = {value:.3f}" for head, value in fitted.items())
    kept = [heads[head] for head, value in found.items() if value == 1]
    rest = f" The {' and the '.join(kept)} is not calibrated." if kept else ""
    meaning = (
        " An entity's score is the mean probability of its words' tags; T makes it the share of "
        "such entities whose span and type are right."
        if "ner" in fitted
        else ""
    )
    return (
        f"Scores are calibrated by temperature scaling on dev ({named}; the last layers of the "
        f"heads are already divided by T).{rest}{meaning} The scores hold for "
        "text like dev's: other topics, other shares of the labels, another language or a graph of "
        "lower precision move them. The dev row above is measured on the sentences that T was "
        "fitted on, test is not. Measure the calibration error on your own text with `evaluate`."
    )


def _limits(settings: Mapping[str, Any]) -> str:
    return (
        f"Texts are read in windows of {settings['model']['max_length']} word pieces that overlap "
        f"by {settings['model']['stride']}; an entity is found within one window. An entity covers "
        "whole words. Only the labels above can be answered: there is no class for other text, "
        "and such text may still get a high score. `samples.jsonl` holds development sentences for "
        "the export's comparison: look at it before you publish the folder."
    )


def _licence(settings: Mapping[str, Any]) -> str:
    if licence := settings["run"].get("license"):
        return f"`{licence}`, set by whoever trained the model."
    return (
        "None is set, so nobody else may use these weights. Choose one that the encoder's and the "
        "data's licences allow, and set it with `--run.license` or in the header above."
    )


def _made_with(environment: Mapping[str, Any] | None) -> list[str]:
    if not environment:
        return []
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    commit = environment.get("git") or {}
    facts = {
        "hardware": ", ".join([*environment["gpus"], environment["cpu"]])
        + f", {environment['cpus']} CPUs, {environment['memory_gib']} GiB",
        "system": f"{environment['system']}, Python {environment['python']}",
        "packages": packages,
        "commit": commit.get("commit", "") + (", changed" if commit.get("dirty") else ""),
    }
    return ["## Environment", _listing(facts)]


def _percent(values: Mapping[str, float | None] | None, key: str) -> str:
    value = (values or {}).get(key)
    return "–" if value is None else f"{100 * value:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _listing(items: Mapping[str, str]) -> str:
    return "\n".join(f"- {key}: {value or '–'}" for key, value in items.items())
