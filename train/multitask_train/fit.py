"""Train a checkpoint: `python -m multitask_train fit --config FILE [--section.key value …]`.

Several processes: `accelerate launch --num_processes N -m multitask_train fit …`. All read and
train; the first one validates and writes.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from transformers import PreTrainedTokenizerFast

from multitask_core import manifest
from multitask_core.errors import ConfigError
from multitask_core.files import recover_folder, write_json, write_text
from multitask_core.text import TextEncoder, Windowing
from multitask_train import backbones, calibration, checkpoint
from multitask_train.card import model_card
from multitask_train.corpora import Corpora, read_corpora
from multitask_train.data.batches import UpdatePlan
from multitask_train.data.features import encode_examples
from multitask_train.environment import environment
from multitask_train.evaluate import describe, evaluate, predict
from multitask_train.figures import write_figures
from multitask_train.interrupt import Interrupt
from multitask_train.journal import Journal
from multitask_train.loop import Learner, Step
from multitask_train.losses import balanced_weights, least_loss
from multitask_train.metrics import check_best_metric, measured_tasks, score, summary
from multitask_train.metrics import only as only_tasks
from multitask_train.model import MultiTaskModel
from multitask_train.processes import held_output, make_accelerator
from multitask_train.resume import FOLDER, ResumeFolder, random_state, restore_random_state
from multitask_train.settings import FitSettings
from multitask_train.strategies import frozen_in_heads

log = logging.getLogger(__name__)

Metrics = dict[str, Any]

# Balancers that part the tasks' gradients in the encoder.
_BY_GRADIENTS = ("pcgrad", "upgrad")


@dataclass
class _Run:
    """What all stages of a run share; `best` is the best epoch so far, `waited` epochs since."""

    settings: FitSettings
    accelerator: Accelerator
    corpora: Corpora
    model: MultiTaskModel
    tokenizer: PreTrainedTokenizerFast
    encoder: TextEncoder
    folder: ResumeFolder
    best: dict[str, Any] = field(default_factory=dict)
    waited: int = 0
    seconds: float = 0.0
    tokens: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process validates and writes."""
        return bool(self.accelerator.is_main_process)


def fit(settings: FitSettings) -> Metrics:
    """Train, keep the epoch that is best on dev, write the checkpoint; returns its metrics.

    Goes on with an unfinished run of the same settings. Raises ConfigError, DataError, and
    InterruptedRunError where a signal asked to stop; the state is saved then.
    """
    accelerator = make_accelerator(settings.optim.precision)
    if not accelerator.is_main_process:
        logging.getLogger().setLevel(logging.ERROR)  # one process speaks for all
    _check_writable(settings.run.output)
    with held_output(accelerator, settings.run.output):
        _check(settings, accelerator)
        set_seed(settings.run.seed)
        if settings.run.threads:
            torch.set_num_threads(settings.run.threads)
        run = _setup(settings, accelerator)
        try:
            history, learner = _train(run)
            result = _finish(run, history, learner) if run.leads else {}
            accelerator.wait_for_everyone()
        finally:
            accelerator.end_training()
        return result


def _check(settings: FitSettings, accelerator: Accelerator) -> None:
    balancer, precision = settings.loss.balancer, settings.optim.precision
    if precision == "fp16" and accelerator.scaler is None:  # accelerate trains in FP32 then
        raise ConfigError(
            f"optim.precision fp16 needs a GPU, and this runs on {accelerator.device}; use bf16 "
            "or no"
        )
    if precision == "fp16" and balancer in _BY_GRADIENTS:
        raise ConfigError(
            f"loss.balancer {balancer} reads gradients, which optim.precision fp16 scales; use "
            "bf16 or no"
        )
    output = settings.run.output
    if accelerator.is_main_process:
        recover_folder(output)
    accelerator.wait_for_everyone()
    manifest.check_target(output, checkpoint.KIND, [checkpoint.LOGS, FOLDER])
    if (output / manifest.NAME).exists() and not settings.run.overwrite:
        raise ConfigError(
            f"{output} already holds a checkpoint; name another --run.output or give "
            "--run.overwrite true"
        )


def _check_writable(output: Path) -> None:
    """Before anything is trained: a run writes into its folder, and renames it from beside."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for folder in (output.parent, output):
            if folder.exists():
                tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"run.output {output}: a run writes in it and beside it, and cannot: {error}; name "
            "another --run.output"
        ) from error


def _setup(settings: FitSettings, accelerator: Accelerator) -> _Run:
    corpora = read_corpora(settings)
    schema = corpora.schema()
    check_best_metric(settings.run.best_metric, measured_tasks(corpora.dev, settings.data.tasks))
    encoder = backbones.resolve(settings.model.encoder)
    tokenizer = checkpoint.load_tokenizer(encoder)
    windowing = Windowing(settings.model.max_length, settings.model.stride)
    model = checkpoint.new_model(
        encoder, schema, dropout=settings.model.dropout, windowing=windowing
    )
    _check_encoder(settings, model)
    _start_from(settings, model)
    # Weights are the same in all processes, dropout is not.
    set_seed(settings.run.seed, device_specific=True)
    log.info("%d classes, %d entity types", len(schema.classes), len(schema.entity_types))
    folder = ResumeFolder(settings, corpora.hashes, accelerator.num_processes)
    text_encoder = checkpoint.text_encoder(tokenizer, model)
    return _Run(settings, accelerator, corpora, model, tokenizer, text_encoder, folder)


def _start_from(settings: FitSettings, model: MultiTaskModel) -> None:
    """Copy what model.start_from holds; say which random weights the strategy would keep."""
    taken: list[str] = []
    if settings.model.start_from:
        taken = checkpoint.copy_weights(Path(settings.model.start_from), model)
        log.info("from %s: %s", settings.model.start_from, ", ".join(taken))
    frozen = frozen_in_heads(model, settings.optim)
    if random := [name for name in frozen if name.partition(".")[0] not in taken]:
        log.warning(
            "optim.strategy %s keeps the random weights of %s; give model.start_from a checkpoint "
            "whose head of the same labels is trained",
            *(settings.optim.strategy, ", ".join(random)),
        )


def _check_encoder(settings: FitSettings, model: MultiTaskModel) -> None:
    """Run one full window: what the config calls its positions may include some for padding."""
    length = model.config.window_length
    ids = torch.full((1, length), 5)
    try:
        with torch.inference_mode():
            model(ids, torch.ones_like(ids))
    except (IndexError, RuntimeError) as error:
        limit = getattr(model.encoder.config, "max_position_embeddings", "fewer")
        raise ConfigError(
            f"model.max_length {length}: the encoder cannot read so many pieces (it has {limit} "
            f"positions, some of which may be padding's): {error}"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"model.encoder {settings.model.encoder} cannot read a text by itself: {error}; name "
            "an encoder of BERT's kind"
        ) from error


def _learner(run: _Run) -> Learner:
    settings, accelerator = run.settings, run.accelerator
    features = encode_examples(run.corpora.train, run.encoder, run.model.config.schema)
    weights = None
    if settings.loss.class_weights == "balanced":
        weights = balanced_weights(features, len(run.model.config.schema.classes))
    plan = UpdatePlan(
        features,
        settings,
        pad_id=run.tokenizer.pad_token_id,
        processes=accelerator.num_processes,
        rank=accelerator.process_index,
        class_weights=weights,
    )
    learner = Learner(accelerator, run.model, plan, settings, weights)
    log.info("%s", learner.strategy.report())
    encoder_trains = any(part.trains for part in learner.strategy.parts if part.depth)
    if settings.loss.balancer in _BY_GRADIENTS and not encoder_trains:
        log.warning(
            "loss.balancer %s parts the tasks' gradients in the encoder, of which optim.strategy "
            "%s trains nothing: both tasks weigh 1 all along",
            *(settings.loss.balancer, settings.optim.strategy),
        )
    log.info("windows: %s; %d updates an epoch; on %s", plan.sizes, len(plan), accelerator.device)
    return learner


def _train(run: _Run) -> tuple[dict[str, Any], Learner]:
    """All epochs, from where the run stands; returns the history."""
    learner = _learner(run)
    state = _restore(run, learner)
    save_every, updates = run.settings.run.save_every, len(learner.plan)
    with (
        Interrupt() as interrupt,
        Journal(
            run.settings,
            updates,
            learner.number,
            state.get("history"),
            disable=not run.leads,
            least=_least_losses(run),
        ) as journal,
    ):
        before = run.seconds
        over = _is_over(run, learner)
        for step in () if over else learner.steps():
            journal.step(step)
            run.tokens += step.tokens
            run.seconds = before + journal.seconds
            ended = step.number % updates == 0
            if ended:
                _validate(run, step, journal)
            if interrupt.signal:
                learner.request_stop()
            over = _is_over(run, learner)
            if ended or learner.stopping or (save_every and step.number % save_every == 0):
                _save(run, learner, journal.state)
            if learner.stopping and not over:
                interrupt.stop(f"stopped after update {step.number} of {learner.total}")
            if over:
                break
    return journal.history, learner


def _least_losses(run: _Run) -> dict[str, float]:
    schema, smoothing = run.model.config.schema, run.settings.loss.label_smoothing
    labels = {"classification": len(schema.classes), "ner": len(schema.tags)}
    return {task: least_loss(smoothing, count) for task, count in labels.items()}


def _is_over(run: _Run, learner: Learner) -> bool:
    patience = run.settings.run.patience
    return learner.number >= learner.total or bool(patience and run.waited >= patience)


def _restore(run: _Run, learner: Learner) -> dict[str, Any]:
    if run.settings.run.overwrite and run.leads and not _same_run(run):
        run.folder.discard()
    run.accelerator.wait_for_everyone()
    state = run.folder.load()
    if state is None:
        return {}
    learner.restore(state["learner"])
    restore_random_state(run.accelerator, state["random"])
    run.best, run.waited = state["best"], state["waited"]
    run.seconds, run.tokens = state["seconds"], state["tokens"]
    log.info("going on after update %d of %d", learner.number, learner.total)
    return state


def _same_run(run: _Run) -> bool:
    try:
        run.folder.load()
    except Exception:  # noqa: BLE001  whatever is wrong with it, it may be replaced
        return False
    return True


def _save(run: _Run, learner: Learner, history: dict[str, Any]) -> None:
    random = random_state(run.accelerator)
    if run.leads:
        state = {
            "learner": learner.state(),
            "random": random,
            "history": history,
            "waited": run.waited,
            "seconds": run.seconds,
            "tokens": run.tokens,
        }
        run.folder.save(state, run.best)
    run.accelerator.wait_for_everyone()


def _validate(run: _Run, step: Step, journal: Journal) -> None:
    """Measure on dev in the first process; all learn whether it is the best epoch."""
    found = [False]
    if run.leads:
        metrics = evaluate(run.model, run.encoder, run.corpora.dev)
        metrics = only_tasks(metrics, run.settings.data.tasks)
        journal.validated(step, metrics, run.seconds)
        value = summary(metrics, run.settings.run.best_metric)
        found = [not run.best or value > run.best["value"]]
        if found[0]:
            file = run.folder.save_best(run.model, step.epoch)
            run.best = {"epoch": step.epoch, "value": value, "file": file}
    broadcast_object_list(found)
    run.waited = 0 if found[0] else run.waited + 1


def _finish(run: _Run, history: dict[str, Any], learner: Learner) -> Metrics:
    """Calibrate the best epoch, measure it and write the checkpoint."""
    settings, corpora, model = run.settings, run.corpora, run.model
    model.load_state_dict(run.folder.load_best(run.best["file"]))
    temperatures = calibration.Temperatures()
    if settings.run.calibrate:
        pipeline = checkpoint.pipeline(model, run.encoder)
        temperatures = calibration.fit(pipeline, corpora.dev, settings.data.tasks)
        temperatures = calibration.apply(model, temperatures)
    result: Metrics = {"epoch": run.best["epoch"]}
    shown, predictions = corpora.dev, []
    for split in ("dev", "test"):
        if examples := getattr(corpora, split):
            predictions = predict(checkpoint.pipeline(model, run.encoder), examples)
            result[split] = only_tasks(score(examples, predictions), settings.data.tasks)
            log.info("%s: %s", split, describe(result[split]))
            shown = examples
    result |= {
        "train_seconds": round(run.seconds, 1),
        "tokens_per_s": round(run.tokens / run.seconds, 1) if run.seconds else 0.0,
        "updates": learner.number,
        "temperatures": asdict(temperatures),
        "parameters": {"trained": learner.strategy.trained, "total": learner.strategy.total},
    }
    values = settings.model_dump(mode="json")
    with tempfile.TemporaryDirectory() as name:
        extras = Path(name)
        write_json(extras / "history.json", history)
        here = environment()
        write_json(extras / "environment.json", here)
        write_text(extras / "settings.yaml", yaml.safe_dump(values, sort_keys=False))
        measured: Metrics = result["test" if "test" in result else "dev"]
        figures = write_figures(extras, history, measured, shown, predictions)
        checkpoint.save(
            settings.run.output,
            model,
            run.tokenizer,
            card=model_card(
                settings.run.output.name, model.config.schema, values, result, figures, here
            ),
            metrics=result,
            config=values,
            samples=corpora.dev,
            data=corpora.hashes["train"],
            extras=sorted(extras.iterdir()),
        )
    log.info("checkpoint: %s", settings.run.output)
    return result
