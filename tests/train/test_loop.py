"""What one update does: losses, balance, frozen parts, accumulation, resuming."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.optim import AdamW

from multitask_core.errors import TrainingError
from multitask_core.labels import LabelSchema
from multitask_train import MultiTaskModel
from multitask_train.data.batches import UpdatePlan, collate
from multitask_train.data.features import IGNORED, Feature
from multitask_train.loop import Learner, Step
from multitask_train.losses import balanced_weights
from multitask_train.settings import FitSettings
from tiny import random_model

JOINT = Feature([2, 5, 6, 3], 1, [IGNORED, 1, 0, IGNORED])
CLASSIFIED = Feature([2, 7, 3], 0, [IGNORED] * 3)
TAGGED = Feature([2, 8, 9, 3], IGNORED, [IGNORED, 3, 4, IGNORED])
UNTAGGED = Feature([2, 7, 9, 8, 3], 0, [IGNORED] * 5)
WORDS = (1, 2)  # where words begin for a teacher
MANY = [
    Feature([2, *range(5, 8 + number % 5), 3], number % 3,
            [IGNORED, *[(number + at) % 7 for at in range(3 + number % 5)], IGNORED])
    for number in range(24)
]  # fmt: skip
BALANCERS = ["equal", "static", "uncertainty", "dwa", "rlw", "famo", "pcgrad", "upgrad"]
STEADY = {"epochs": 1, "warmup": 0.0, "batch_size": 4, "max_grad_norm": 1e9}


def make_settings(**sections) -> FitSettings:
    sections["optim"] = {**STEADY, **sections.get("optim", {})}
    return FitSettings.model_validate(sections)


def make_learner(model: MultiTaskModel, windows: list[Feature], **sections) -> Learner:
    settings = make_settings(**sections)
    weights = None
    if settings.loss.class_weights == "balanced":
        weights = balanced_weights(windows, len(model.config.schema.classes))
    plan = UpdatePlan(windows, settings, pad_id=0, class_weights=weights)
    return Learner(Accelerator(cpu=True), model, plan, settings, weights)


def taught(windows: list[Feature], teacher: MultiTaskModel) -> list[Feature]:
    """The windows with a teacher's answers at WORDS, FP16 as they are kept."""
    answered = []
    for one in windows:
        with torch.no_grad():
            output = teacher(
                torch.tensor([one.input_ids]), torch.ones(1, len(one.input_ids)).long()
            )
        answers = output.token_logits[0, list(WORDS)].log_softmax(-1)
        answered.append(replace(one, tag_answers=answers.half().numpy(), answered=WORDS))
    return answered


def run(model: MultiTaskModel, windows: list[Feature], **sections) -> list[Step]:
    return list(make_learner(model, windows, **sections).steps())


@pytest.fixture
def model(tiny_encoder: Path, schema: LabelSchema) -> MultiTaskModel:
    return still(tiny_encoder, schema)


def still(tiny_encoder: Path, schema: LabelSchema) -> MultiTaskModel:
    """No dropout, so that what is computed twice is equal."""
    return random_model(tiny_encoder, schema, dropout=0.0)


def state(model: MultiTaskModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], model: MultiTaskModel) -> set[str]:
    """First two parts of the names of all parameters that moved."""
    after = model.state_dict()
    return {
        ".".join(name.split(".")[: 4 if "encoder.layer." in name else 2])
        for name in before
        if not torch.equal(before[name], after[name])
    }


def assert_same(left: MultiTaskModel, right: MultiTaskModel, tolerance: float = 1e-6) -> None:
    for name, expected in left.named_parameters():
        if name.endswith("key.bias"):  # its gradient is nought but for rounding: Adam steps anyhow
            continue
        torch.testing.assert_close(
            right.get_parameter(name), expected, atol=tolerance, rtol=tolerance
        )


def test_an_update_steps_on_the_sum_of_both_gradients(
    model: MultiTaskModel, tiny_encoder: Path, schema: LabelSchema
) -> None:
    expected = still(tiny_encoder, schema)
    sum(expected(**collate([one], 0)).loss for one in (CLASSIFIED, TAGGED)).backward()
    heads = [*expected.sentence_head.parameters(), *expected.token_head.parameters()]
    groups = [
        {"params": [one for one in parameters if (one.ndim > 1) == decays], "lr": rate,
         "weight_decay": 0.01 * decays}
        for parameters, rate in ((heads, 1e-3), (list(expected.encoder.parameters()), 2e-4))
        for decays in (True, False)
    ]  # fmt: skip
    AdamW(groups).step()
    (step,) = run(model, [CLASSIFIED, TAGGED])
    assert_same(expected, model)
    assert step.weights == {"classification": 1.0, "ner": 1.0}
    assert step.tokens == 7


def test_a_loss_without_weight_moves_nothing_of_its_head(model: MultiTaskModel) -> None:
    before = model.token_head.output.bias.detach().clone()
    run(model, [JOINT], loss={"balancer": "static", "ner": 0.0})
    torch.testing.assert_close(model.token_head.output.bias, before)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_balancer_trains_both_heads(model: MultiTaskModel, balancer: str) -> None:
    before = state(model)
    steps = run(model, MANY, loss={"balancer": balancer}, optim={"epochs": 4})
    assert len(steps) == 24
    for step in steps:
        assert set(step.losses) == set(step.weights) == {"classification", "ner"}
        assert all(weight > 0 for weight in step.weights.values())
    first, last = steps[:3], steps[-3:]
    for task in ("classification", "ner"):
        assert sum(one.losses[task] for one in last) < sum(one.losses[task] for one in first)
    assert {"sentence_head.output", "token_head.output"} < changed(before, model)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_separate_corpora_with_every_balancer(model: MultiTaskModel, balancer: str) -> None:
    (step,) = run(model, [CLASSIFIED, TAGGED], loss={"balancer": balancer})
    assert set(step.weights) == {"classification", "ner"}


@pytest.mark.parametrize("balancer", ["equal", "famo", "pcgrad"])
def test_accumulated_updates_equal_large_ones(
    model: MultiTaskModel, tiny_encoder: Path, schema: LabelSchema, balancer: str
) -> None:
    loss = {"balancer": balancer, "class_weights": "balanced", "label_smoothing": 0.1}
    whole = run(model, MANY, loss=loss, optim={"batch_size": 8})
    other = still(tiny_encoder, schema)
    cut = run(other, MANY, loss=loss, optim={"batch_size": 2, "accumulation": 4})
    assert [one.losses for one in cut] == [pytest.approx(one.losses) for one in whole]
    assert_same(model, other, 1e-5)


def test_gradients_that_agree_are_left_alone_by_pcgrad_and_upgrad(
    model: MultiTaskModel, tiny_encoder: Path, schema: LabelSchema
) -> None:
    """With tasks that do not conflict both methods are the plain sum."""
    import torchjd.aggregation as methods

    gramian = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    conflict = torch.tensor([[2.0, -0.5], [-0.5, 1.0]])
    assert methods.PCGradWeighting()(gramian).tolist() == pytest.approx([1.0, 1.0])
    from multitask_train.balancing.gradients import PCGrad, UPGrad

    tasks = ["classification", "ner"]
    for method in (PCGrad(), UPGrad()):
        agreed = method.weights(tasks, 1, None, gramian)
        assert list(agreed.values()) == pytest.approx([1.0, 1.0], abs=1e-3)
        parted = torch.tensor(list(method.weights(tasks, 1, None, conflict).values()))
        assert (conflict @ parted >= -1e-3).all()  # no task's loss grows to first order
        assert (parted > 1).all()


FROZEN = {
    "full": set(),
    "heads": {"encoder"},
    "output-layers": {"encoder", "sentence_head.dense"},
    "freeze-classification": {"sentence_head"},
    "freeze-ner": {"token_head"},
}


@pytest.mark.parametrize("strategy", FROZEN)
def test_a_strategy_moves_what_it_says(model: MultiTaskModel, strategy: str) -> None:
    before = state(model)
    learner = make_learner(model, MANY, optim={"strategy": strategy})
    list(learner.steps())
    moved = changed(before, model)
    assert moved
    for name in FROZEN[strategy]:
        assert not any(one.startswith(name) for one in moved)
    for part in ("encoder", "sentence_head.dense", "sentence_head.output", "token_head.output"):
        if not any(part.startswith(name) for name in FROZEN[strategy]):
            assert any(one.startswith(part) for one in moved), part
    report = learner.strategy.report()
    trained = sum(
        value.numel()
        for name, value in model.named_parameters()
        if not any(name.startswith(frozen) for frozen in FROZEN[strategy])
    )
    assert f"{trained:,} of {learner.strategy.total:,} parameters train" in report
    assert ("frozen" in report) == bool(FROZEN[strategy])


def test_gradual_unfreezing_goes_from_the_last_layer_down(model: MultiTaskModel) -> None:
    optim = {"strategy": "gradual", "unfreeze_every": 2, "unfreeze_unit": "updates"}
    learner = make_learner(model, MANY, optim={**optim, "epochs": 2})
    begun: dict[str, int] = {}
    before = state(model)
    for step in learner.steps():
        for name in changed(before, model):
            begun.setdefault(name, step.number)
    assert begun["token_head.output"] == begun["sentence_head.dense"] == 1
    assert begun["encoder.encoder.layer.1"] == 3
    assert begun["encoder.encoder.layer.0"] == 5
    assert begun["encoder.embeddings"] == 7


def test_layers_whose_turn_never_comes_are_told(
    model: MultiTaskModel, caplog: pytest.LogCaptureFixture
) -> None:
    optim = {"strategy": "gradual", "unfreeze_every": 3, "unfreeze_unit": "updates"}
    before = state(model)
    learner = make_learner(model, MANY, optim=optim)  # 6 updates
    list(learner.steps())
    assert "2 parts never begin to train in 6 updates: encoder layer 1 of 2" in caplog.text
    moved = [name for name, old in before.items() if not torch.equal(old, model.state_dict()[name])]
    assert learner.strategy.trained == sum(before[name].numel() for name in moved)


def test_lower_layers_learn_at_lower_rates(model: MultiTaskModel) -> None:
    learner = make_learner(model, MANY, optim={"layer_decay": 0.5, "learning_rate": 1e-3})
    rates = {part.name: part.rate for part in learner.strategy.parts}
    assert rates["encoder layer 2 of 2"] == pytest.approx(1e-3)
    assert rates["encoder layer 1 of 2"] == pytest.approx(5e-4)
    assert rates["encoder embeddings"] == pytest.approx(2.5e-4)
    assert rates["token_head.output"] == pytest.approx(1e-3)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_learner_goes_on_from_its_state(
    model: MultiTaskModel, tiny_encoder: Path, schema: LabelSchema, balancer: str, tmp_path: Path
) -> None:
    sections = {
        "loss": {"balancer": balancer},
        "optim": {"epochs": 4, "strategy": "gradual", "unfreeze_every": 0.5, "ema_decay": 0.9},
    }
    uncut = make_learner(model, MANY, **sections)
    whole = list(uncut.steps())
    cut = make_learner(still(tiny_encoder, schema), MANY, **sections)
    steps = cut.steps()
    first = [next(steps) for _ in range(15)]
    torch.save(cut.state(), tmp_path / "state.pt")
    other = random_model(tiny_encoder, schema, seed=7, dropout=0.0)
    again = make_learner(still(tiny_encoder, schema), MANY, **sections)
    again.model.load_state_dict(other.state_dict())
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert first + list(again.steps()) == whole
    for ended, expected in ((again.model, model), (again.kept, uncut.kept)):
        for name, value in expected.state_dict().items():
            assert torch.equal(ended.state_dict()[name], value), name


def test_the_kept_weights_are_the_moving_average_of_all_updates(model: MultiTaskModel) -> None:
    learner = make_learner(model, MANY, optim={"ema_decay": 0.6, "epochs": 2})
    assert learner.kept is not model
    seen = []
    for step in learner.steps():
        weights = state(model)
        if seen:  # the start is forgotten faster: TensorFlow's (1 + n) / (10 + n)
            decay = min(0.6, step.number / (9 + step.number))
            weights = {
                name: decay * seen[-1][name] + (1 - decay) * value
                for name, value in weights.items()
            }
        seen.append(weights)
        for name, value in learner.kept.state_dict().items():
            torch.testing.assert_close(value, weights[name], msg=name)
    assert len(seen) == 12
    assert changed(state(learner.kept), model)  # it trails behind what trains


def test_without_an_average_the_model_itself_is_kept(model: MultiTaskModel) -> None:
    assert make_learner(model, MANY).kept is model


@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_run_that_diverges_stops_before_it_ruins_the_weights(
    model: MultiTaskModel, balancer: str
) -> None:
    learner = make_learner(model, MANY, loss={"balancer": balancer})
    steps = learner.steps()
    next(steps)
    with torch.no_grad():
        model.token_head.output.bias[0] = torch.nan
    before = state(model)
    with pytest.raises(TrainingError, match=r"update 2 of 6: the loss of ner is nan.*diverged"):
        next(steps)
    assert all(
        torch.equal(old, new) or old.isnan().any()
        for old, new in zip(before.values(), model.state_dict().values(), strict=True)
    )


def test_an_update_whose_scaled_gradients_overflow_does_not_count(model: MultiTaskModel) -> None:
    """As fp16 does on a GPU; accelerate itself makes no scaler for a CPU."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    accelerator.unscale_gradients = lambda optimizer=None: accelerator.scaler.unscale_(
        learner._optimizer.optimizer
    )
    heavy = {"balancer": "static", "classification": 20.0, "ner": 20.0}
    settings = make_settings(optim={"warmup": 0.5, "epochs": 4}, loss=heavy)
    learner = Learner(accelerator, model, UpdatePlan(MANY, settings, pad_id=0), settings)
    counted, rates = [], []
    for step in learner.steps():
        counted.append(math.isfinite(step.gradient_norm))
        rates.append(step.learning_rate)
    first = counted.index(True)
    assert 0 < first < 12
    assert rates[: first + 1] == [0.0] * (first + 1)  # the warm-up waits for it
    assert 0 < rates[first + 1] < rates[first + 2]


def test_a_scaler_is_ready_before_the_first_loss(model: MultiTaskModel) -> None:
    """A process whose share of the first update is empty gets its gradients from the others."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu")
    settings = make_settings()
    learner = Learner(accelerator, model, UpdatePlan(MANY, settings, pad_id=0), settings)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, accelerator.scaler.get_scale())
    accelerator.scaler.unscale_(learner._optimizer.optimizer)
    assert all(bool((one.grad == 1).all()) for one in model.parameters())


def test_gradients_are_clipped(model: MultiTaskModel, tiny_encoder: Path, schema) -> None:
    """To a norm so far below Adam's epsilon that hardly anything moves."""
    clipped, before = still(tiny_encoder, schema), state(model)
    optim = {"weight_decay": 0.0}
    (free,) = run(model, [JOINT], optim=optim)
    (held,) = run(clipped, [JOINT], optim={**optim, "max_grad_norm": 1e-12})
    assert held.gradient_norm == pytest.approx(free.gradient_norm)

    def moved(after: MultiTaskModel) -> float:
        return max(float((before[name] - one).abs().max()) for name, one in state(after).items())

    assert moved(clipped) < 1e-2 * moved(model)


def test_a_request_to_stop_counts_at_once_in_one_process(model: MultiTaskModel) -> None:
    learner = make_learner(model, MANY)
    next(learner.steps())
    learner.request_stop()
    assert learner.stopping


def test_the_rate_follows_its_schedule(model: MultiTaskModel) -> None:
    rates = {}
    for schedule in ("linear", "cosine", "constant"):
        optim = {"epochs": 2, "warmup": 0.25, "schedule": schedule, "learning_rate": 1.0e-5}
        rates[schedule] = [one.learning_rate for one in run(model, MANY, optim=optim)]
    for found in rates.values():
        assert found[:4] == pytest.approx([0.0, 1e-5 / 3, 2e-5 / 3, 1e-5])
    assert rates["constant"][-1] == pytest.approx(1e-5)
    assert rates["linear"][-1] == pytest.approx(1e-5 / 9)
    assert rates["cosine"][-1] < rates["linear"][-1]


def test_rare_classes_count_more() -> None:
    windows = [Feature([2, 5, 3], label, [IGNORED] * 3) for label in (0, 0, 0, 2)]
    assert balanced_weights(windows, 3) == pytest.approx([4 / 6, 1.0, 2.0])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_teacher_answers_where_labels_are_lacking_and_beside_them(
    tiny_encoder: Path, schema: LabelSchema, share: float
) -> None:
    """By hand: the mean of the labels, the mean divergence beside them, that in their place."""
    model, teacher = still(tiny_encoder, schema), still(tiny_encoder, schema)
    with torch.no_grad():
        for part in teacher.parameters():
            part.mul_(1.5)
    losses, divergences = [], []
    for one in (UNTAGGED, TAGGED):
        batch = collate([one], 0)
        with torch.no_grad():
            ours, theirs = (
                each(batch["input_ids"], batch["attention_mask"]).token_logits[0].log_softmax(-1)
                for each in (model, teacher)
            )
        losses.append(torch.nn.functional.nll_loss(ours, batch["token_labels"][0]))
        words = (theirs.exp() * (theirs - ours)).sum(-1)[list(WORDS)]
        divergences.append(words.mean())
    assert min(divergences) > 1e-3
    windows = taught([UNTAGGED, TAGGED], teacher)
    if not share:  # nobody asks it there
        windows[1] = TAGGED
    expected = (1 - share) * losses[1] + share * divergences[1] + divergences[0]
    loss = {"teacher_share": share, "ner_teacher": "one in memory"}
    (step,) = run(model, windows, loss=loss)
    assert step.losses["ner"] == pytest.approx(float(expected), rel=1e-3)
    plain = still(tiny_encoder, schema)
    (alone,) = run(plain, [UNTAGGED, TAGGED])
    assert step.losses["classification"] == pytest.approx(alone.losses["classification"], rel=1e-5)


def test_a_teacher_holds_a_head_where_it_has_no_labels(
    tiny_encoder: Path, schema: LabelSchema
) -> None:
    """After training for the other task alone, answers there are the teacher's, else anybody's."""
    teacher = still(tiny_encoder, schema)
    ids, mask = torch.tensor([UNTAGGED.input_ids]), torch.ones(1, 5, dtype=torch.long)
    with torch.no_grad():
        teacher.token_head.output.bias[2] += 4
        wanted = teacher(ids, mask).token_logits[0, list(WORDS)].softmax(-1)
    distances = {}
    for name, windows in (("taught", taught([UNTAGGED], teacher)), ("alone", [UNTAGGED])):
        model = still(tiny_encoder, schema)
        run(model, windows, optim={"epochs": 40})
        with torch.no_grad():
            found = model(ids, mask).token_logits[0, list(WORDS)].softmax(-1)
        distances[name] = float((found - wanted).abs().max())
    assert distances["taught"] < 0.1 < distances["alone"]


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_balancer_weighs_what_a_teacher_gives(
    tiny_encoder: Path, schema: LabelSchema, balancer: str
) -> None:
    model, teacher = still(tiny_encoder, schema), still(tiny_encoder, schema)
    with torch.no_grad():
        teacher.token_head.output.bias[2] += 4
    (step,) = run(model, taught([UNTAGGED], teacher), loss={"balancer": balancer})
    assert set(step.losses) == set(step.weights) == {"classification", "ner"}
    assert step.losses["ner"] > 0.1
