"""Every corpus format, and every fault with its file and line."""

import gzip
import json
import logging
from pathlib import Path

import pytest

from multitask_core.errors import DataError
from multitask_train.data import Example, Span, read_examples
from multitask_train.data.examples import write_jsonl

JOINT = Example("play jazz", "music", (Span(5, 9, "genre"),))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {
                "text": "play jazz",
                "label": "music",
                "entities": [{"start": 5, "end": 9, "type": "genre"}],
            },
            JOINT,
        ),
        ({"text": "hi", "label": "greet"}, Example("hi", "greet")),
        ({"text": "hi", "entities": []}, Example("hi", None, ())),
        (
            {"tokens": ["in", "New", "York"], "tags": ["O", "B-geo-loc", "I-geo-loc"]},
            Example("in New York", None, (Span(3, 11, "geo-loc"),), ((0, 2), (3, 6), (7, 11))),
        ),
        (
            {
                "tokens": ["Zoë", "'", "s"],
                "tags": ["B-p", "O", "O"],
                "text": " Zoë's",
                "label": "x",
            },
            Example(" Zoë's", "x", (Span(1, 4, "p"),), ((1, 4), (4, 5), (5, 6))),
        ),
    ],
)
def test_json_lines(tmp_path: Path, record: dict, expected: Example) -> None:
    line = json.dumps(record)
    plain = write(tmp_path / "a.jsonl", line, "")
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(line.encode()))
    assert read_examples(plain) == read_examples(packed) == [expected]


def test_written_examples_read_back(tmp_path: Path) -> None:
    examples = [JOINT, Example("hi", "greet"), Example("é 😀", None, (Span(2, 3, "face"),))]
    write_jsonl(tmp_path / "a.jsonl", examples)
    assert read_examples(tmp_path / "a.jsonl") == examples


def test_conll(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.conll",
        "-DOCSTART- -X- O",
        "",
        "# label: travel",
        "to TO O",
        "Bath NN B-city",
        "",
        "# 5 NN O",
        "I-first NN I-name",
    )
    first, second = read_examples(path)
    assert (first.text, first.label, first.entities) == ("to Bath", "travel", (Span(3, 7, "city"),))
    assert second.label is None
    assert second.entities == (Span(0, 7, "name"),)


def test_intent_slot_folder(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        write(tmp_path / split / "seq.in", f"play jazz {split}")
        write(tmp_path / split / "seq.out", "O B-genre O")
        write(tmp_path / split / "label", "music")
    assert read_examples(tmp_path, "dev")[0].text == "play jazz valid"
    assert read_examples(tmp_path / "train")[0].entities == (Span(5, 9, "genre"),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[]", "a JSON object is needed"),
        ("{}", "neither 'text' nor 'tokens'"),
        ('{"text": " ", "label": "a"}', "the text is empty"),
        ('{"text": "a"}', "neither a label nor entities"),
        ('{"text": "a", "label": 3}', "label 3 is no name"),
        (
            '{"text": "abc", "entities": [{"start": 2, "end": 5, "type": "x"}]}',
            "does not lie in the text",
        ),
        (
            '{"text": "abc", "entities": [{"start": 2, "end": 2, "type": "x"}]}',
            "does not lie in the text",
        ),
        ('{"text": "ab c", "entities": [{"start": 0, "end": 3, "type": "x"}]}', "white space"),
        ('{"text": "abc", "entities": [{"start": 0, "end": 1}]}', "needs start, end and type"),
        ('{"text": "abc", "entities": [{"start": 0.0, "end": 1, "type": "x"}]}', "whole numbers"),
        (
            '{"text": "abc", "entities": [{"start": 0, "end": 2, "type": "x"},'
            ' {"start": 1, "end": 3, "type": "y"}]}',
            "overlap",
        ),
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "2 tokens but 1 tags"),
        ('{"tokens": ["a"], "tags": ["X"]}', "'X' is no BIO tag"),
        (
            '{"tokens": ["a", "b"], "tags": ["O", "O"], "text": "a c b"}',
            "token 'b' does not follow",
        ),
        ('{"tokens": [], "tags": []}', "non-blank strings"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "fine", "label": "a"}', line)
    with pytest.raises(DataError, match=r"a\.jsonl:2: ") as caught:
        read_examples(path)
    assert message in str(caught.value)


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 999)[:20])
    write(tmp_path / "one.conll", "word")
    (tmp_path / "empty.jsonl").touch()
    for name, message in {
        "latin.jsonl": "not UTF-8",
        "cut.jsonl.gz": "cannot read",
        "one.conll": r"one\.conll:1: a row needs a token and a tag",
        "empty.jsonl": "holds no example",
        "none.jsonl": "there is no",
        "a.parquet": "there is no",
    }.items():
        with pytest.raises(DataError, match=message):
            read_examples(tmp_path / name)
    with pytest.raises(DataError, match="unknown format '.md'"):
        read_examples(write(tmp_path / "a.md", "x"))
    with pytest.raises(DataError, match="holds 0 entries named test"):
        read_examples(tmp_path)


def test_intent_slot_files_of_different_lengths(tmp_path: Path) -> None:
    write(tmp_path / "seq.in", "a", "b")
    write(tmp_path / "seq.out", "O")
    write(tmp_path / "label", "x", "y")
    with pytest.raises(DataError, match="different numbers of lines"):
        read_examples(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hub_dataset_with_class_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset in the hub's own layout, read from a folder instead of the hub."""
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-genre"])),
            "intent": datasets.ClassLabel(names=["other", "music"]),
        }
    )
    rows = {"tokens": [["play", "jazz"]], "ner_tags": [[0, 1]], "intent": [1]}
    hub = tmp_path / "hub"
    hub.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(hub / "train.parquet")
    (example,) = read_examples(f"hub:{hub}?label=intent", "train")
    assert (example.text, example.label, example.entities) == (
        JOINT.text,
        JOINT.label,
        JOINT.entities,
    )
    with pytest.raises(DataError, match="there is no column 'nope'"):
        read_examples(f"hub:{hub}?text=nope&split=train")
    with pytest.raises(DataError, match="unknown option"):
        read_examples(f"hub:{hub}?colour=red")
    with pytest.raises(DataError, match="cannot load the hub dataset"):
        read_examples(f"hub:{hub}", "validation")
