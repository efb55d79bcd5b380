"""Every corpus format, and every fault with its file and line."""

import gzip
import json
import logging
from pathlib import Path

import pytest

from multitask_core.errors import DataError
from multitask_train import demo_corpus
from multitask_train.data import Example, Span, read_examples
from multitask_train.data.examples import Located, write_jsonl
from multitask_train.data.sources import FORMATS, read_records, source_hash, splits_of

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


@pytest.mark.parametrize(
    "record",
    [
        {"text": "hi", "label": "greet", "tag": ["vip"], "tags": ["vip"], "id": 7, "test": "x"},
        {"text": "hi", "label": "greet", "labels": ["greet", "hello"], "entities": None},
        {"text": "hi", "label": "greet", "entity": "none", "label_text": "Greeting"},
    ],
)
def test_keys_of_the_corpus_itself_are_ignored(tmp_path: Path, record: dict) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(record))
    assert read_examples(path) == [Example("hi", "greet")]


@pytest.mark.parametrize(
    "record",
    [
        {"tokens": ["to", "Rome"], "ner_tags": ["O", "B-city"], "label": "x"},
        {"tokens": ["to", "Rome"], "ner_tags": [0, 3], "label": "x"},
        {"tokens": ["to", "Rome"], "slots": ["O", "B-city"], "label": "x"},
        {"text": "to Rome", "tags": ["O", "B-city"], "label": "x"},
    ],
)
def test_tags_under_a_key_that_is_not_read_are_not_lost(tmp_path: Path, record: dict) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(record))
    with pytest.raises(DataError, match="holds the tags of words and is not read: give them as"):
        read_examples(path)


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
        "# sent_id = 5",
        "I-first NN I-name",
    )
    first, second = read_examples(path)
    assert (first.text, first.label, first.entities) == ("to Bath", "travel", (Span(3, 7, "city"),))
    assert second.label is None
    assert second.entities == (Span(0, 7, "name"),)


def test_conll_keeps_tokens_that_look_like_comments(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.conll",
        "# sent_id = 5",
        "#begin",
        "#",
        "#\tO",
        "# NN B-sign",
        "#jazz I-sign",
        "10\u00a0km O",
    )
    (example,) = read_examples(path)
    assert example.text == "# # #jazz 10\u00a0km"
    assert example.entities == (Span(2, 9, "sign"),)
    assert example.words == ((0, 1), (2, 3), (4, 9), (10, 15))


def test_conll_label_ends_the_sentence_above(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "# label: one", "a O", "# label: two", "b O", "", "c O")
    assert [(one.text, one.label) for one in read_examples(path)] == [
        ("a", "one"),
        ("b", "two"),
        ("c", None),
    ]


def test_a_conll_document_mark_ends_the_sentence_above(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "a O", "-DOCSTART- -X- O", "b O")
    assert [one.text for one in read_examples(path)] == ["a", "b"]


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    record = json.dumps({"text": "play jazz", "label": "music"})
    for name, text in {
        "a.jsonl": f"{record}\r\n",
        "a.conll": "# label: music\r\nplay O\r\njazz O\r\n",
        "seq.in": "play jazz\r\n",
        "seq.out": "O O\r\n",
        "label": "music\r\n",
    }.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    for path in (tmp_path / "a.jsonl", packed, tmp_path / "a.conll", tmp_path):
        (example,) = read_examples(path)
        assert (example.text, example.label) == ("play jazz", "music")


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\x0b", "\x0c"])
def test_unicode_line_breaks_cut_nothing(tmp_path: Path, sign: str) -> None:
    write(tmp_path / "seq.in", f"a{sign}b c", "d")
    write(tmp_path / "seq.out", "B-x O", "O")
    write(tmp_path / "label", "one", "two")
    write(tmp_path / "a.conll", f"a{sign}b B-x", "c O")
    folder, conll = read_examples(tmp_path), read_examples(tmp_path / "a.conll")
    assert folder[0].entities == conll[0].entities == (Span(0, 3, "x"),)
    assert [example.label for example in folder] == ["one", "two"]


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
        (
            '{"text": "a" "label": "b"}',
            "no JSON: Expecting ',' delimiter at character 14; write one whole JSON object a line",
        ),
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
        ('{"tokens": [3], "tags": ["O"]}', "non-blank strings"),
        ('{"tokens": ["a"], "tags": [3]}', "list of strings such as B-city, got 3"),
        ('{"tokens": ["a"], "tags": ["O"], "text": 3}', "a text must be str, got int"),
        ('{"tokens": ["\\ud800"], "tags": ["O"]}', "a lone surrogate, at character 0"),
        ('{"text": "a \\ud800", "label": "a"}', "a lone surrogate, at character 2"),
        ('{"text": "a", "label": "\\ud800"}', "is no name"),
        ('{"text": "a", "label": " q"}', "label ' q' is no name"),
        (
            '{"text": "abc", "entities": [{"start": 0, "end": 1, "type": " q"}]}',
            "needs a type of trimmed text, got ' q'",
        ),
        ('{"tokens": ["a"], "tags": ["B- q"]}', "needs a type of trimmed text, got ' q'"),
        ('{"text": "a", "label": "b", "entites": []}', "there is 'entites' and no 'entities'"),
        ('{"text": "a", "entities": [], "Lable": "b"}', "there is 'Lable' and no 'label'"),
        ('{"tokens": ["a"], "label": "b", "tag": ["O"]}', "there is 'tag' and no 'tags'"),
        ('{"tokens": ["a"], "label": "b", "entities": []}', "'entities' belong to 'text'"),
        ("[" * 100_000, "no JSON"),
        ('{"text": "a",\r"label": "a"}', "carriage return inside the line"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine", "label": "a"}\n' + line.encode())
    with pytest.raises(DataError, match=r"a\.jsonl:2: ") as caught:
        read_examples(path)
    assert message in str(caught.value)


def test_broken_files(tmp_path: Path) -> None:
    good = b'{"text": "a", "label": "b"}\n' * 20_000
    (tmp_path / "latin.jsonl").write_bytes(good + b'{"text": "caf\xe9"}')
    (tmp_path / "damaged.jsonl.gz").write_bytes(gzip.compress(b"{}")[:10] + b"\xff" * 99)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 999)[:20])
    write(tmp_path / "one.conll", "word")
    write(tmp_path / "tag.conll", "a O", "b X", "c O")
    (tmp_path / "empty.jsonl").touch()
    for name, message in {
        "latin.jsonl": r"latin\.jsonl:20001: not UTF-8 at byte 14 of the line",
        "cut.jsonl.gz": r"cut\.jsonl\.gz:1: cannot read",
        "damaged.jsonl.gz": r"damaged\.jsonl\.gz:1: cannot read",
        "one.conll": r"one\.conll:1: a row needs a token and a tag",
        "tag.conll": r"tag\.conll:2: 'X' is no BIO tag",
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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for a dataset in the hub's own layout, read instead of the hub."""
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def fill_hub(hub: Path, tags: list[list[int]], intents: list[int]) -> None:
    """Rows `play jazz` with class ids for tags and intent."""
    import datasets

    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-genre"])),
            "intent": datasets.ClassLabel(names=["other", "music"]),
        }
    )
    rows = {"tokens": [["play", "jazz"]] * len(tags), "ner_tags": tags, "intent": intents}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(hub / "train.parquet")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hub_dataset_with_class_ids(hub: Path) -> None:
    fill_hub(hub, [[0, 1]], [1])
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_unlabelled_hub_rows(hub: Path) -> None:
    fill_hub(hub, [[0, 1], [0, -1]], [-1, 1])
    with pytest.raises(DataError, match=r"hub:.*:2: a token has no tag") as caught:
        read_examples(f"hub:{hub}", "train")
    assert "class id -1" in str(caught.value)
    source = f"hub:{hub}?label=intent&split=train%5B:1%5D"
    (example,) = read_examples(source)
    assert (example.label, example.entities) == (None, JOINT.entities)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_unlabelled_hub_row_without_entities_is_refused(hub: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    rows = {"text": ["x", "y"], "label": [1, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(hub / "train.parquet")
    with pytest.raises(DataError, match=r"hub:.*:2: neither a label nor entities are given"):
        read_examples(f"hub:{hub}", "train")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_dev_is_what_the_hub_calls_validation(hub: Path) -> None:
    fill_hub(hub, [[0, 1]], [1])
    (hub / "validation.parquet").write_bytes((hub / "train.parquet").read_bytes())
    assert splits_of(f"hub:{hub}") == ("train", "dev")
    assert splits_of(f"hub:{hub}?split=train") == ()
    (example,) = read_examples(f"hub:{hub}", "dev")
    assert example.entities == JOINT.entities


def test_the_demo_corpus_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = demo_corpus.write(tmp_path / "demo")
    for split, path in written.items():
        assert read_examples("demo", split) == read_examples(path)
    with pytest.raises(DataError, match="demo has no split 'all'; it has train, dev, test"):
        read_examples("demo", "all")
    assert "demo" in FORMATS


def test_a_source_hash_follows_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line, other = '{"text": "a", "label": "b"}', '{"text": "a", "label": "c"}'
    write(tmp_path / "train.jsonl", line)
    file, folder = (
        source_hash(str(path), "train") for path in (tmp_path / "train.jsonl", tmp_path)
    )
    assert file == folder
    write(tmp_path / "train.jsonl", other)
    assert source_hash(str(tmp_path), "train") != folder
    assert source_hash("hub:a/b", "train") != source_hash("hub:a/c", "train")
    demo = source_hash("demo", "train")
    assert demo == source_hash("demo", "train") != source_hash("demo", "dev")
    build = demo_corpus.build
    monkeypatch.setattr(demo_corpus, "build", lambda: build(seed=14))
    assert source_hash("demo", "train") != demo


def test_an_intent_slot_hash_covers_every_file(tmp_path: Path) -> None:
    hashes = set()
    for changed in (None, "seq.in", "seq.out", "label"):
        for name in ("seq.in", "seq.out", "label"):
            write(tmp_path / name, "y" if name == changed else "x")
        hashes.add(source_hash(str(tmp_path), "train"))
    assert len(hashes) == 4


def outcomes(path: Path, split: str = "test") -> list[str]:
    """The text of every record that was read, or the fault that came in its place."""
    read = read_records(path, split)
    return [str(one) if isinstance(one, DataError) else one.example.text for one in read]


def test_reading_goes_on_after_a_faulty_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"text": "one", "label": "a"}\n{\n\n{"text": "caf\xe9", "label": "a"}\n'
        b'{"text": "two", "label": "a"}\n{"text": "three"}'
    )
    one, broken, latin, two, bare = outcomes(path)
    assert (one, two) == ("one", "two")
    assert broken.startswith(f"{path}:2: no JSON")
    assert latin.startswith(f"{path}:4: not UTF-8 at byte 14")
    assert bare.startswith(f"{path}:6: neither a label nor entities")


def test_places_and_tags_as_they_are_written(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        "",
        '{"tokens": ["a", "b"], "tags": ["I-x", "B-x"]}',
        '{"tokens": ["a"], "label": "l"}',
        '{"text": "a", "label": "l", "tags": "no tokens, no tags"}',
    )
    read = [one for one in read_records(path) if isinstance(one, Located)]
    assert [one.place for one in read] == [f"{path}:{line}" for line in (2, 3, 4)]
    assert [one.tags for one in read] == [("I-x", "B-x"), None, None]


def test_a_faulty_row_takes_its_sentence_alone(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.conll",
        *("# label: lost", "a O", "b X", "c O", "word", ""),
        *("d O", "# label: kept", "e O", ""),
        *("# label: gone", "B-x", "", "f B-x"),
    )
    read = list(read_records(path))
    faults = [str(one) for one in read if isinstance(one, DataError)]
    assert faults == [
        f"{path}:3: 'X' is no BIO tag: allowed are O, B-<type> and I-<type>",
        f"{path}:5: a row needs a token and a tag, got ['word']",
        f"{path}:12: a row needs a token and a tag, got ['B-x']",
    ]
    kept = [one for one in read if isinstance(one, Located)]
    assert [(one.place, one.example.text, one.example.label, one.tags) for one in kept] == [
        (f"{path}:7", "d", None, ("O",)),
        (f"{path}:9", "e", "kept", ("O",)),
        (f"{path}:14", "f", None, ("B-x",)),
    ]


def test_parallel_lines_with_faults(tmp_path: Path) -> None:
    write(tmp_path / "seq.in", "a", "b c", "d", "e")
    write(tmp_path / "seq.out", "O", "O", "B-x", "O")
    (tmp_path / "label").write_bytes(b"one\ntwo\nthree\nf\xfcnf\n")
    first, second, third, fourth = outcomes(tmp_path)
    assert (first, third) == ("a", "d")
    assert second.startswith(f"{tmp_path}/seq.in:2: 2 tokens but 1 tags")
    assert fourth.startswith(f"{tmp_path}/label:4: not UTF-8 at byte 2")


def test_an_error_counts_the_other_faults_and_names_the_remedy(tmp_path: Path) -> None:
    good = '{"text": "fine", "label": "a"}'
    path = write(tmp_path / "my data.jsonl", good, "{", good)
    with pytest.raises(DataError, match="my data.jsonl:2: no JSON") as caught:
        read_examples(path)
    assert "more fault" not in str(caught.value)
    remedy = f"run `python -m multitask_train inspect '{path}'`"
    for lines, more in (([good, "{", "[]"], "1 more fault"), (["{"] * 4, "3 more faults")):
        write(path, *lines)
        with pytest.raises(DataError, match="no JSON") as caught:
            read_examples(path)
        assert str(caught.value).endswith(f"; {more}: {remedy}")


def test_a_file_that_ends_early_is_no_faulty_record(tmp_path: Path) -> None:
    good = '{"text": "fine", "label": "a"}\n' * 50_000
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"{\n" + good.encode())[:-20])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz:\d+: cannot read the file: .*; copy or"):
        read_examples(path)


def test_the_splits_that_a_source_holds(tmp_path: Path) -> None:
    line = '{"text": "a", "label": "b"}'
    for name in ("train.jsonl", "valid.jsonl", "notes.md"):
        write(tmp_path / name, line)
    assert splits_of(str(tmp_path)) == ("train", "dev")
    assert splits_of(str(tmp_path / "train.jsonl")) == ()
    assert splits_of("demo") == ("train", "dev", "test")
    with pytest.raises(DataError, match="there is no .*nowhere"):
        splits_of(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no entry named train, dev, valid or test"):
        splits_of(str(tmp_path / "empty"))


def test_a_fault_names_the_parallel_file_it_is_in(tmp_path: Path) -> None:
    write(tmp_path / "seq.in", "a", "b", "c")
    write(tmp_path / "seq.out", "O", "X-y", "O")
    write(tmp_path / "label", " ", "two", "three")
    first, second, third = outcomes(tmp_path)
    assert first.startswith(f"{tmp_path}/label:1: label '' is no name")
    assert second.startswith(f"{tmp_path}/seq.out:2: ")
    assert third == "c"
