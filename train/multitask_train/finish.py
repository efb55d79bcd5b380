"""The end of a run: the best epoch is calibrated, measured and written as a checkpoint."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from multitask_core.files import write_json, write_text
from multitask_core.prediction import Prediction
from multitask_train import calibration, checkpoint
from multitask_train.card import model_card
from multitask_train.data import Example
from multitask_train.environment import environment
from multitask_train.evaluate import describe, predict
from multitask_train.figures import write_figures
from multitask_train.loop import Learner
from multitask_train.metrics import only, score
from multitask_train.run import Run
from multitask_train.strategies import FROZEN_HEADS

log = logging.getLogger(__name__)

Metrics = dict[str, Any]
# Each split's sentences with the answers to them.
_Answers = dict[str, tuple[Sequence[Example], list[Prediction]]]


def finish(run: Run, history: Mapping[str, Any], learner: Learner) -> Metrics:
    """Turn the best epoch into a checkpoint; returns its metrics."""
    run.model.load_state_dict(run.folder.load_best(run.best["file"]))
    if learner.number and not run.best["epoch"]:
        log.warning(
            "no epoch was better on dev than what model.start_from gave: it is kept; train longer, "
            "at another optim.learning_rate, or with more run.patience"
        )
    temperatures = _calibrate(run)
    answers = _answer(run)
    metrics: Metrics = {
        "epoch": run.best["epoch"],
        **{split: _measure(run, split, *found) for split, found in answers.items()},
        "train_seconds": round(run.seconds, 1),
        "teacher_seconds": round(run.teacher_seconds, 3),
        "tokens_per_s": round(run.tokens / run.seconds, 1) if run.seconds else 0.0,
        "updates": learner.number,
        "temperatures": asdict(temperatures),
        "parameters": {"trained": learner.strategy.trained, "total": learner.strategy.total},
    }
    _write(run, history, metrics, answers)
    log.info("checkpoint: %s", run.settings.run.output)
    return metrics


def _calibrate(run: Run) -> calibration.Temperatures:
    if not run.settings.run.calibrate:
        return calibration.Temperatures()
    tasks: str = run.settings.data.tasks
    if frozen := FROZEN_HEADS.get(run.settings.optim.strategy):  # a head that stays as it is
        if tasks == frozen:
            return calibration.Temperatures()
        (tasks,) = {*FROZEN_HEADS.values()} - {frozen}
    pipeline = checkpoint.pipeline(run.model, run.encoder)
    return calibration.apply(run.model, calibration.fit(pipeline, run.corpora.dev, tasks))


def _answer(run: Run) -> _Answers:
    """The answers to dev, and to test where there is one."""
    pipeline = checkpoint.pipeline(run.model, run.encoder)
    splits = {"dev": run.corpora.dev, "test": run.corpora.test}
    return {split: (given, predict(pipeline, given)) for split, given in splits.items() if given}


def _measure(
    run: Run, split: str, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> Metrics:
    metrics = only(score(examples, predictions), run.settings.data.tasks)
    log.info("%s: %s", split, describe(metrics))
    return metrics


def _write(run: Run, history: Mapping[str, Any], metrics: Metrics, answers: _Answers) -> None:
    """Write the checkpoint with the run's files; the figures show the last split measured."""
    values, here = run.settings.model_dump(mode="json"), environment()
    split, (examples, predictions) = list(answers.items())[-1]
    output, schema = run.settings.run.output, run.model.config.schema
    with tempfile.TemporaryDirectory() as name:
        extras = Path(name)
        write_json(extras / "history.json", history)
        write_json(extras / "environment.json", here)
        write_text(extras / "settings.yaml", yaml.safe_dump(values, sort_keys=False))
        figures = write_figures(extras, history, metrics[split], examples, predictions)
        checkpoint.save(
            output,
            run.model,
            run.tokenizer,
            card=model_card(output.name, schema, values, metrics, figures, here),
            metrics=metrics,
            config=values,
            samples=run.corpora.dev,
            data=run.corpora.hashes["train"],
            extras=sorted(extras.iterdir()),
        )
