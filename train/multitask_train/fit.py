"""Train a checkpoint: `python -m multitask_train fit --config FILE [--section.key value …]`.

Several processes: `accelerate launch --num_processes N -m multitask_train fit …`. All read and
train; the first one validates and writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object, set_seed

from multitask_core.errors import ConfigError
from multitask_train.data.batches import AnswerCounts, UpdatePlan
from multitask_train.data.features import Answer, encode_examples
from multitask_train.evaluate import evaluate
from multitask_train.finish import Metrics, finish
from multitask_train.interrupt import Interrupt
from multitask_train.journal import Journal
from multitask_train.loop import Learner
from multitask_train.losses import balanced_weights, least_loss
from multitask_train.metrics import only as only_tasks
from multitask_train.metrics import summary
from multitask_train.model import MultiTaskModel
from multitask_train.processes import held_output, keep_freed_memory, make_accelerator
from multitask_train.resume import random_state, restore_random_state
from multitask_train.run import BY_GRADIENTS, Run, check, check_writable, set_up
from multitask_train.settings import FitSettings
from multitask_train.teachers import Teachers

log = logging.getLogger(__name__)


def fit(settings: FitSettings) -> Metrics:
    """Train, keep the epoch that is best on dev, write the checkpoint; returns its metrics.

    Goes on with an unfinished run of the same settings. Raises ConfigError, DataError, and
    InterruptedRunError where a signal asked to stop; the state is saved then.
    """
    keep_freed_memory()
    accelerator = make_accelerator(settings.optim.precision)
    if not accelerator.is_main_process:
        logging.getLogger().setLevel(logging.ERROR)  # one process speaks for all
    check_writable(settings.run.output)
    with held_output(accelerator, settings.run.output):
        check(settings, accelerator)
        set_seed(settings.run.seed)
        if settings.run.threads:
            torch.set_num_threads(settings.run.threads)
        run = set_up(settings, accelerator)
        try:
            history, learner = _train(run)
            result = finish(run, history, learner) if run.leads else {}
            accelerator.wait_for_everyone()
        finally:
            accelerator.end_training()
        return result


def _learner(run: Run) -> Learner:
    settings, accelerator = run.settings, run.accelerator
    features = encode_examples(
        run.corpora.train, run.encoder, run.model.config.schema, _ask_teachers(run)
    )
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
    if settings.loss.balancer in BY_GRADIENTS and not encoder_trains and settings.optim.epochs:
        log.warning(
            "loss.balancer %s parts the tasks' gradients in the encoder, of which optim.strategy "
            "%s trains nothing: both tasks weigh 1 all along",
            *(settings.loss.balancer, settings.optim.strategy),
        )
    _tell_answers(settings.loss.teachers, plan.answers)
    log.info("windows: %s; %d updates an epoch; on %s", plan.sizes, len(plan), accelerator.device)
    return learner


def _ask_teachers(run: Run) -> list[Answer]:
    """What the teachers say of all training sentences; each process asks them for its share."""
    accelerator, examples = run.accelerator, run.corpora.train
    if not run.teachers.teachers:
        return [Answer()] * len(examples)
    count, started = accelerator.num_processes, time.perf_counter()
    with accelerator.autocast():
        own = run.teachers.answers(examples[accelerator.process_index :: count], progress=run.leads)
    run.teachers = Teachers()  # whose models take memory
    answers = [Answer()] * len(examples)
    for process, share in enumerate(gather_object([own])):
        answers[process::count] = share
    run.teacher_seconds = time.perf_counter() - started
    return answers


def _tell_answers(teachers: Iterable[str], answers: Mapping[str, AnswerCounts]) -> None:
    for task in teachers:
        beside, instead = answers.get(task, AnswerCounts(0, 0))
        if beside + instead:
            log.info(
                "the teacher of %s: %d answers beside labels, %d in their place",
                *(task, beside, instead),
            )
        else:
            log.warning(
                "loss.%s_teacher is never asked: every sentence has labels of its own; with "
                "loss.teacher_share, such as 0.5, it is imitated beside them",
                task,
            )


def _train(run: Run) -> tuple[dict[str, Any], Learner]:
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
        if run.settings.model.start_from and not state:
            _validate_start(run, learner.kept, journal)
            run.seconds = journal.seconds
        over = _is_over(run, learner)
        for step in () if over else learner.steps():
            journal.step(step)
            run.tokens += step.tokens
            run.seconds = before + journal.seconds
            ended = step.number % updates == 0
            if ended:
                _validate(run, learner.kept, step.epoch, step.number, journal)
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


def _least_losses(run: Run) -> dict[str, float]:
    schema, smoothing = run.model.config.schema, run.settings.loss.label_smoothing
    labels = {"classification": len(schema.classes), "ner": len(schema.tags)}
    shares = run.settings.loss.teacher_shares
    return {
        task: (1 - shares.get(task, 0.0)) * least_loss(smoothing, count)
        for task, count in labels.items()
    }


def _is_over(run: Run, learner: Learner) -> bool:
    patience = run.settings.run.patience
    return learner.number >= learner.total or bool(patience and run.waited >= patience)


def _restore(run: Run, learner: Learner) -> dict[str, Any]:
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


def _same_run(run: Run) -> bool:
    try:
        run.folder.load()
    except Exception:  # noqa: BLE001  whatever is wrong with it, it may be replaced
        return False
    return True


def _save(run: Run, learner: Learner, history: dict[str, Any]) -> None:
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


def _validate_start(run: Run, model: MultiTaskModel, journal: Journal) -> None:
    """Measure what a run starts from: it is kept where no epoch makes it better."""
    _validate(run, model, 0, 0, journal)
    found = [_reached(start.report, run.settings.run.best_metric) for start in run.starts]
    theirs = [value for value in found if value is not None]
    if run.leads and len(theirs) > 1 and run.best["value"] < min(theirs):
        log.warning(
            "the mean of the weights reaches %.2f on dev, where the checkpoints by themselves "
            "reached %s on theirs: only checkpoints that began from the same one, heads included, "
            "have a mean that is worth something",
            *(100 * run.best["value"], ", ".join(f"{100 * one:.2f}" for one in theirs)),
        )


def _reached(report: Mapping[str, Any], metric: str) -> float | None:
    """What a checkpoint reached on its own dev split, None where that did not give the metric."""
    try:
        return summary(report["dev"], metric)
    except (ConfigError, KeyError):
        return None


def _validate(run: Run, model: MultiTaskModel, epoch: int, update: int, journal: Journal) -> None:
    """Measure on dev in the first process; all learn whether it is the best epoch."""
    found = [False]
    if run.leads:
        metrics = evaluate(model, run.encoder, run.corpora.dev)
        metrics = only_tasks(metrics, run.settings.data.tasks)
        journal.validated(epoch, update, metrics, run.seconds)
        value = summary(metrics, run.settings.run.best_metric)
        found = [not run.best or value > run.best["value"]]
        if found[0]:
            file = run.folder.save_best(model, epoch)
            run.best = {"epoch": epoch, "value": value, "file": file}
    broadcast_object_list(found)
    run.waited = 0 if found[0] else run.waited + 1
