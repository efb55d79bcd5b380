"""Which sentences a run trains on, and which it holds out."""

from pathlib import Path

import pytest

from multitask_core.errors import DataError
from multitask_train.corpora import read_corpora
from multitask_train.data import Example
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


def test_no_dev_is_refused_with_advice(source: str) -> None:
    with pytest.raises(DataError, match=r"data\.holdout"):
        read(train=source, dev=[])
    with pytest.raises(DataError, match=r"data\.train names no source"):
        read(train=[], dev=source)
