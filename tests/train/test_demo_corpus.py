"""Tests of the demo corpus: its size, its annotations, its splits and its determinism."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

from multitask_train.demo_corpus import build, write
from multitask_train.demo_corpus.sources import Sentence, Sources, load, parse, text_key

SHA256 = "72fcd1056ba7908ab05cddf23a116e10120cd6b41d05a2cf93aa1840e44f41e6"

Splits = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return build()


@pytest.fixture(scope="module")
def sources() -> Sources:
    return load()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the data files that a test may break."""
    with as_file(files("multitask_train.demo_corpus")) as package:
        shutil.copytree(package, tmp_path / "data", ignore=shutil.ignore_patterns("*.py*"))
    return tmp_path / "data"


def mentions(splits: Splits, *names: str) -> list[tuple[str, str]]:
    return [
        (entity["type"], example["text"][entity["start"] : entity["end"]])
        for name in names
        for example in splits[name]
        for entity in example["entities"]
    ]


def fixed(sentences: list[Sentence]) -> set[tuple[str, str]]:
    return {
        (piece.type, piece.text.casefold())
        for sentence in sentences
        for piece in sentence.pieces
        if piece.type and piece.text
    }


def test_corpus_is_large_and_varied_enough(splits: Splits, sources: Sources) -> None:
    frames = [frame.source for of_intent in sources.frames.values() for frame in of_intent]
    assert len(sources.frames) >= 8
    assert len(sources.lexicons) >= 12
    assert len({text_key(frame) for frame in frames}) == len(frames) >= 440
    assert len(sources.natural) >= 160
    assert 2000 <= len(splits["train"]) <= 3000
    assert len(splits["dev"]) >= 150
    assert len(splits["test"]) >= 300


def test_every_split_has_every_intent_and_type(splits: Splits, sources: Sources) -> None:
    for name, examples in splits.items():
        assert {example["label"] for example in examples} == set(sources.frames)
        assert {entity_type for entity_type, _ in mentions(splits, name)} == set(sources.lexicons)


def test_most_types_are_used_by_several_intents(splits: Splits, sources: Sources) -> None:
    for entity_type in sources.lexicons:
        intents = {
            example["label"]
            for example in splits["train"]
            if any(entity["type"] == entity_type for entity in example["entities"])
        }
        assert len(intents) >= 3, entity_type


def test_lexicons_are_long_enough_and_disjoint(sources: Sources) -> None:
    for name, parts in sources.lexicons.items():
        train = {value.casefold() for value in parts["train"]}
        test = {value.casefold() for value in parts["test"]}
        assert len(train) >= 25, name
        assert len(test) >= 12, name
        assert not train & test, name


def test_mentions_are_exact_and_from_the_right_lexicon(splits: Splits, sources: Sources) -> None:
    frames = [frame for of_intent in sources.frames.values() for frame in of_intent]
    allowed = {
        part: {
            (name, v.casefold()) for name, parts in sources.lexicons.items() for v in parts[part]
        }
        for part in ("train", "test")
    }
    seen = {(name, value.casefold()) for name, value in mentions(splits, "train", "dev")}
    assert seen <= allowed["train"] | fixed(frames)
    seen = {(name, value.casefold()) for name, value in mentions(splits, "test")}
    assert seen <= allowed["test"] | fixed(frames) | fixed(sources.natural)


def test_mentions_are_ordered_apart_and_on_word_boundaries(splits: Splits) -> None:
    for example in (example for examples in splits.values() for example in examples):
        text, end = example["text"], 0
        for entity in example["entities"]:
            assert set(entity) == {"start", "end", "type"}
            assert end <= entity["start"] < entity["end"] <= len(text), text
            value = text[entity["start"] : (end := entity["end"])]
            assert value == value.strip(), text
            assert not (text[: entity["start"]][-1:] + value[0]).isalnum() or not entity["start"]
            assert not (value[-1] + text[end:][:1]).isalnum() or end == len(text), text


def test_no_text_occurs_twice(splits: Splits) -> None:
    texts = [text_key(example["text"]) for examples in splits.values() for example in examples]
    assert len(set(texts)) == len(texts)


def test_natural_sentences_are_in_test_only_and_not_frames(
    splits: Splits, sources: Sources
) -> None:
    natural = {"".join(piece.text for piece in sentence.pieces) for sentence in sources.natural}
    assert natural <= {example["text"] for example in splits["test"]}
    shapes = {
        "".join(f"<{piece.type}>" if piece.type else piece.text for piece in sentence.pieces)
        for sentence in sources.natural
    }
    for frames in sources.frames.values():
        for frame in frames:
            parts = (f"<{piece.type}>" if piece.type else piece.text for piece in frame.pieces)
            assert "".join(parts) not in shapes, frame.where


def test_natural_values_are_mostly_new(sources: Sources) -> None:
    train = {(name, v.casefold()) for name, p in sources.lexicons.items() for v in p["train"]}
    values = fixed(sources.natural)
    assert len(values & train) < 0.1 * len(values)


def test_same_arguments_give_the_same_files(tmp_path: Path, splits: Splits) -> None:
    assert build() == splits
    paths = write(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dev.jsonl",
        "test.jsonl",
        "train.jsonl",
    ]
    digest = hashlib.sha256(b"".join(paths[name].read_bytes() for name in sorted(paths)))
    # A new digest is right after an edit of the data, and wrong after a change of Python.
    assert digest.hexdigest() == SHA256
    lines = paths["dev"].read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == splits["dev"]


def test_another_seed_gives_another_corpus(splits: Splits) -> None:
    assert build(seed=14)["train"] != splits["train"]
    with pytest.raises(ValueError, match="per_frame"):
        build(per_frame=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Ring {nobody} now", "no lexicon for 'nobody'"),
        ("Ring [Zoë](nobody) now", "no lexicon for 'nobody'"),
        ("Ring {person now", "broken markup"),
        ("Ring [Zoë(person) now", "broken markup"),
        ("Ring [Zoë] (person) now", "broken markup"),
        ("Ring [Zoë ](person) now", "move the spaces"),
    ],
)
def test_broken_markup_is_refused(line: str, message: str, sources: Sources) -> None:
    with pytest.raises(ValueError, match=f"^here:7: .*{message}"):
        parse(line, "here:7", sources.lexicons)


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("frames/query_bill.txt", "Explain {charge}", r"frames/query_bill.txt:\d+: no lexicon"),
        ("frames/query_bill.txt", "THIS BILL IS WRONG!", r":\d+: repeats frames/query_bill.txt:"),
        ("natural_test.txt", "query_bill What?", r"natural_test.txt:\d+: start the line"),
        ("natural_test.txt", "query_bill\tWhy {amount}?", r"natural_test.txt:\d+: a whole"),
        ("lexicons.json", "}", r"lexicons.json:\d+: not valid JSON"),
    ],
)
def test_faults_name_the_file_and_the_line(data: Path, name: str, extra: str, message: str) -> None:
    with (data / name).open("a", encoding="utf-8") as file:
        file.write(f"{extra}\n")
    with pytest.raises(ValueError, match=message):
        build(source=data)


def test_value_in_both_lexicons_is_refused(data: Path) -> None:
    lexicons = json.loads((data / "lexicons.json").read_text(encoding="utf-8"))
    lexicons["city"]["test"].append("LEEDS")
    (data / "lexicons.json").write_text(json.dumps(lexicons), encoding="utf-8")
    with pytest.raises(ValueError, match=r"'city' lists \['leeds'\] twice"):
        build(source=data)
