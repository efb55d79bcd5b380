"""Which windows an update holds: schedules, accumulation, processes."""

from collections import Counter
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import pytest
import torch

from multitask_core.errors import DataError
from multitask_train.data.batches import Update, UpdatePlan, collate
from multitask_train.data.features import IGNORED, Feature, only
from multitask_train.settings import FitSettings

LABELS = {"joint": (0, 1), "classification": (0, IGNORED), "ner": (IGNORED, 1)}


def features(kind: str, count: int, first: int = 5) -> list[Feature]:
    """Windows told apart by their second piece."""
    label, tag = LABELS[kind]
    return [
        Feature([2, first + number, *[4] * (number % 7), 3], label,
                [IGNORED, tag, *[IGNORED] * (number % 7 + 1)])
        for number in range(count)
    ]  # fmt: skip


def make_plan(
    windows: list[Feature], batch_size: int, *, processes: int = 1, rank: int = 0, **sections
) -> UpdatePlan:
    settings = FitSettings.model_validate(
        {
            "data": sections.get("data", {}),
            "loss": sections.get("loss", {}),
            "optim": {"batch_size": batch_size, **sections.get("optim", {})},
            "run": {"seed": sections.get("seed", 1)},
        }
    )
    return UpdatePlan(windows, settings, pad_id=0, processes=processes, rank=rank)


def pieces(update: Update) -> list[int]:
    return [int(row) for batch in update.batches for row in batch["input_ids"][:, 1]]


def test_two_corpora_alternate_and_the_shorter_starts_again() -> None:
    plan = make_plan([*features("classification", 10), *features("ner", 4)], 2)
    updates = list(plan.epoch(1))
    assert len(updates) == len(plan) == 5
    for update in updates:
        classification, ner = update.batches
        assert (classification["class_labels"] != IGNORED).all()
        assert (classification["token_labels"] == IGNORED).all()
        assert (ner["class_labels"] == IGNORED).all()
        assert update.counts == {"classification": 2, "ner": 2}
        assert update.tokens == sum(int(one["attention_mask"].sum()) for one in update.batches)
    first = chain.from_iterable(update.batches[0]["input_ids"][:, 1] for update in updates)
    assert sorted(map(int, first)) == list(range(5, 15))


def test_labels_that_a_teacher_gives_are_counted_and_marked() -> None:
    tags = np.arange(10, dtype=np.float16).reshape(2, 5)
    classes = np.arange(3, dtype=np.float16)
    classified = Feature([2, 5, 6, 7, 3], 1, [IGNORED] * 5, None, tags, (1, 3))
    tagged = Feature([2, 8, 3], IGNORED, [IGNORED, 1, IGNORED], classes, tags[:1] + 20, (1,))
    more = Feature([2, 9, 8, 3], IGNORED, [IGNORED, 1, 0, IGNORED], None, tags + 30, (1, 2))
    plan = make_plan([classified, tagged, more], 2, loss={"teacher_share": 0.6})
    (update,) = plan.epoch(1)
    assert update.counts == {"classification": 1, "ner": 3}
    assert update.answers == plan.answers == {"classification": (0, 1), "ner": (3, 2)}
    first, second = update.batches  # the sentences with a label, then the others
    assert first["ner_places"].tolist() == [1, 3]
    assert torch.equal(first["ner_answers"], torch.from_numpy(tags))
    assert first["ner_weights"].tolist() == [1 / 2, 1 / 2]
    assert "classification_answers" not in first
    assert second["ner_places"].tolist() == [1, 4 + 1, 4 + 2]
    assert second["ner_answers"][:, 0].tolist() == [20, 30, 35]
    assert second["ner_weights"].tolist() == pytest.approx([0.6 / 3] * 3)
    assert second["classification_places"].tolist() == [0]
    assert torch.equal(second["classification_answers"], torch.from_numpy(classes)[None])
    assert second["classification_weights"].tolist() == [1]

    (update,) = make_plan([tagged], 2).epoch(1)
    assert update.tasks == ["classification", "ner"]  # one is learned from the teacher alone
    plain = [replace(one, class_answer=None, tag_answers=None, answered=())
             for one in (classified, tagged)]  # fmt: skip
    (update,) = make_plan(plain, 2).epoch(1)
    assert update.answers == {}
    assert not any("answers" in name for batch in update.batches for name in batch)


def test_joint_sentences_come_once_and_train_both() -> None:
    updates = list(make_plan(features("joint", 5), 2).epoch(1))
    assert [len(update.batches) for update in updates] == [1, 1, 1]
    assert all((update.batches[0]["class_labels"] != IGNORED).all() for update in updates)
    assert sorted(chain.from_iterable(map(pieces, updates))) == list(range(5, 10))


def test_proportional_shows_every_window_once() -> None:
    windows = [*features("classification", 40), *features("ner", 8, first=100)]
    plan = make_plan(windows, 4, data={"schedule": "proportional"})
    updates = list(plan.epoch(1))
    assert len(updates) == len(plan) == 6
    assert sorted(chain.from_iterable(map(pieces, updates))) == [*range(5, 45), *range(100, 108)]
    kinds = [tuple(update.counts) for update in updates]
    assert ("classification",) in kinds  # an update need not hold both tasks


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.9), (2.0, 0.75), (1000.0, 0.5)])
def test_temperature_evens_the_corpora_out(temperature: float, share: float) -> None:
    windows = [*features("classification", 900), *features("ner", 100, first=2000)]
    plan = make_plan(windows, 1, data={"schedule": "temperature", "temperature": temperature})
    seen = Counter(
        "ner" if one >= 2000 else "classification"
        for epoch in range(1, 7)
        for update in plan.epoch(epoch)
        for one in pieces(update)
    )
    assert seen.total() == 6 * 1000
    assert seen["classification"] / seen.total() == pytest.approx(share, abs=0.03)


def test_accumulated_batches_are_the_large_batch_cut() -> None:
    windows = features("joint", 37)
    large = list(make_plan(windows, 8).epoch(1))
    cut = list(make_plan(windows, 2, optim={"accumulation": 4}).epoch(1))
    assert [pieces(one) for one in large] == [pieces(one) for one in cut]
    assert [one.counts for one in large] == [one.counts for one in cut]
    assert max(len(one.batches) for one in cut) == 4
    assert all(len(batch["input_ids"]) <= 2 for one in cut for batch in one.batches)


@pytest.mark.parametrize("schedule", ["round-robin", "proportional", "temperature"])
def test_processes_share_the_batches_of_one(schedule: str) -> None:
    windows = [*features("classification", 21), *features("ner", 10, first=100)]
    data = {"schedule": schedule}
    whole = list(make_plan(windows, 6, data=data).epoch(2))
    shares = [
        list(make_plan(windows, 2, processes=3, rank=rank, data=data).epoch(2)) for rank in range(3)
    ]
    for one, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert sorted(pieces(one)) == sorted(chain.from_iterable(map(pieces, parts)))
        assert all(part.counts == one.counts and part.tokens == one.tokens for part in parts)


def test_an_epoch_goes_on_where_it_stopped() -> None:
    plan = make_plan(features("joint", 30), 4)
    assert list(map(pieces, plan.epoch(3, 5))) == list(map(pieces, islice(plan.epoch(3), 5, None)))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        plan = make_plan(features("joint", 30), 4, seed=seed)
        return list(chain.from_iterable(map(pieces, plan.epoch(epoch))))

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_batches_are_grouped_by_length() -> None:
    plan = make_plan(features("joint", 700), 10)
    padding = sum(
        int((batch["attention_mask"] == 0).sum())
        for update in plan.epoch(1)
        for batch in update.batches
    )
    tokens = sum(update.tokens for update in plan.epoch(1))
    assert padding / (padding + tokens) < 0.05


def test_class_weights_make_the_count() -> None:
    windows = [Feature([2, 5, 3], label, [IGNORED] * 3) for label in (0, 1, 1)]
    settings = FitSettings.model_validate({"optim": {"batch_size": 3}})
    plan = UpdatePlan(windows, settings, pad_id=0, class_weights=[1.5, 0.75])
    (update,) = plan.epoch(1)
    assert update.counts == {"classification": 3.0}


def test_one_task_alone() -> None:
    windows = [*features("joint", 2), *features("classification", 2), *features("ner", 2)]
    assert only(windows, "both") == windows
    assert {one.kind for one in only(windows, "classification")} == {"classification"}
    assert {one.kind for one in only(windows, "ner")} == {"ner"}
    assert len(only(windows, "classification")) == len(only(windows, "ner")) == 4
    with pytest.raises(DataError, match=r"data\.tasks is ner"):
        only(features("classification", 2), "ner")


@pytest.mark.parametrize("schedule", ["round-robin", "proportional", "temperature"])
@pytest.mark.parametrize("kinds", [("classification", "ner"), ("joint", "ner"), ("joint",)])
def test_one_task_alone_has_the_budget_that_it_has_with_the_other(
    schedule: str, kinds: tuple[str, ...]
) -> None:
    windows = [one for kind, count in zip(kinds, (90, 20), strict=False)
               for one in features(kind, count)]  # fmt: skip

    def labels(tasks: str, task: str) -> float:
        plan = make_plan(windows, 2, data={"schedule": schedule, "tasks": tasks})
        updates = [list(plan.epoch(epoch)) for epoch in range(1, 31)]
        assert all(len(one) == len(plan) for one in updates)
        return sum(update.counts.get(task, 0.0) for one in updates for update in one) / 30

    for task in {kind for kind in kinds if kind != "joint"} or {"classification", "ner"}:
        together = labels("both", task)
        # A part of a batch, and what is drawn at random.
        assert labels(task, task) == pytest.approx(together, rel=0.1, abs=2)


def test_padding_is_ignored() -> None:
    batch = collate([Feature([2, 3], 0, [IGNORED, 1]), Feature([2, 4, 3], 1, [0, 1, 0])], pad_id=9)
    assert batch["input_ids"][0].tolist() == [2, 3, 9]
    assert batch["token_labels"][0].tolist() == [IGNORED, 1, IGNORED]
    assert batch["attention_mask"][0].tolist() == [1, 1, 0]


def test_windows_that_teach_nothing_are_left_out() -> None:
    empty = Feature([2, 99, 3], IGNORED, [IGNORED] * 3)
    plan = make_plan([*features("ner", 3), empty, *features("classification", 3)], 1)
    assert plan.sizes == {"classification": 3, "ner": 3}
    assert 99 not in chain.from_iterable(map(pieces, plan.epoch(1)))


@pytest.mark.parametrize("schedule", ["round-robin", "proportional", "temperature"])
def test_windows_that_teach_one_head_through_a_teacher_have_a_budget_too(schedule: str) -> None:
    answer = {"tag_answers": np.zeros((1, 5), np.float16), "answered": (1,)}
    classified = [replace(one, **answer) for one in features("classification", 40)]
    windows = [*classified, *features("ner", 16, 100)]
    plan = make_plan(windows, 4, data={"tasks": "ner", "schedule": schedule})
    assert plan.sizes == {"ner": 56}
    updates = list(plan.epoch(1))
    assert len(updates) == len(plan) >= 14
    assert {piece for update in updates for piece in pieces(update)} == {
        *range(5, 45), *range(100, 116)
    }  # fmt: skip
    untaught = make_plan([*features("classification", 40), *features("ner", 16, 100)], 4,
                         data={"tasks": "ner", "schedule": schedule})  # fmt: skip
    assert untaught.sizes == {"ner": 16}
