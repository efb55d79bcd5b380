"""Which sentences a run trains on, and which it holds out."""

from pathlib import Path

import pytest

from multitask_core.errors import DataError
from multitask_train.corpora import read_corpora
from multitask_train.data import Example, Span, read_examples
from multitask_train.data.examples import write_jsonl
from multitask_train.settings import FitSettings


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "train.jsonl"
    write_jsonl(
        path, [Example(f"number {at}", "even" if at % 2 else "odd", ()) for at in range(50)]
    )
    return str(path)


def read(seed: int = 1, **data):
    return read_corpora(FitSettings.model_validate({"data": data, "run": {"seed": seed}}))


def test_held_out_sentences_are_dev_and_the_same_with_every_seed(source: str) -> None:
    one = read(train=source, dev=[], holdout=0.2)
    other = read(seed=2, train=source, dev=[], holdout=0.2)
    assert len(one.dev) == 10
    assert one.dev == other.dev
    assert len(one.train) == 40
    assert not {example.text for example in one.dev} & {example.text for example in one.train}


def test_a_limit_draws_by_seed_from_what_is_left(source: str) -> None:
    one = read(train=source, dev=source, holdout=0.2, limit=5)
    assert len(one.train) == 5
    assert len(one.dev) == 60
    assert one.train != read(seed=2, train=source, dev=source, holdout=0.2, limit=5).train


def test_a_limit_and_a_holdout_leave_the_labels_as_they_are(tmp_path: Path) -> None:
    """Else the checkpoints of two seeds could not teach the same student."""
    path = tmp_path / "rare.jsonl"
    names = ["rare", *["common"] * 19]
    write_jsonl(path, [Example(f"n {at}", one, (Span(0, 1, one),)) for at, one in enumerate(names)])
    found = [read(seed, train=str(path), dev=[], holdout=0.2, limit=3) for seed in (1, 2, 3)]
    assert any(one.label == "rare" for corpora in found for one in corpora.train) is False
    for corpora in found:
        schema = corpora.schema()
        assert set(schema.classes) == set(schema.entity_types) == {"rare", "common"}


def test_no_dev_is_refused_with_advice(source: str) -> None:
    for given in ({}, {"dev": []}):
        with pytest.raises(DataError, match=r"data\.dev names no source.*data\.holdout"):
            read(train=source, **given)
    with pytest.raises(DataError, match=r"data\.train names no source"):
        read(train=[], dev=source)


def test_demo_is_dev_of_demo_alone(source: str) -> None:
    assert read().dev == read_examples("demo", "dev")
    held = read(holdout=0.1)
    assert len(held.dev) == round(0.1 * (len(held.train) + len(held.dev)))
    assert len(read(train=source, holdout=0.2).dev) == 10
    with pytest.raises(DataError, match=r"data\.dev names no source"):
        read(train=["demo", source])


def test_a_holdout_that_leaves_nothing_on_one_side_is_named(source: str) -> None:
    with pytest.raises(DataError, match=r"data\.holdout 0\.999 holds out all 50 sentences"):
        read(train=source, holdout=0.999)
    with pytest.raises(DataError, match=r"data\.holdout 0\.001 holds out none"):
        read(train=source, holdout=0.001)


def test_each_split_has_its_own_hash(source: str, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    write_jsonl(other, [Example("number 1", "even", ())])
    one, changed = (read(train=source, dev=dev, test=source) for dev in (source, str(other)))
    differ = [split for split in one.hashes if one.hashes[split] != changed.hashes[split]]
    assert differ == ["dev"]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_split_of_other_labels_altogether_is_refused(split: str, tmp_path: Path, caplog) -> None:
    jazz, paris = Span(0, 4, "genre"), Span(0, 5, "city")
    write_jsonl(tmp_path / "train.jsonl", [Example("jazz", "music", (jazz,))])
    write_jsonl(tmp_path / "dev.jsonl", [Example("jazz", "music", (jazz,))])
    write_jsonl(tmp_path / "test.jsonl", [Example("jazz", "music", (jazz,))])
    write_jsonl(tmp_path / f"{split}.jsonl", [Example("Paris", "go", (paris,))])
    sources = {name: str(tmp_path) for name in ("train", "dev", "test")}
    with pytest.raises(DataError, match=rf"data\.{split} shares no label .* it has go, city: name"):
        read(**sources).schema()
    write_jsonl(tmp_path / f"{split}.jsonl", [Example("Paris", "music", (paris,))])
    read(**sources).schema()
    assert f"{split} holds labels or types that training never shows" in caplog.text


@pytest.mark.parametrize(("tasks", "lacks"), [("classification", "entity"), ("ner", "label")])
def test_training_for_one_task_still_needs_the_names_of_the_other(
    tmp_path: Path, tasks: str, lacks: str
) -> None:
    one = (
        Example("jazz", "music", ())
        if lacks == "entity"
        else Example("a", None, (Span(0, 1, "t"),))
    )
    write_jsonl(tmp_path / "a.jsonl", [one])
    source = str(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=f"carries any {lacks}, .* whichever data.tasks trains"):
        read(train=source, dev=source, tasks=tasks).schema()
