"""`python -m multitask_train inspect`: each finding on a corpus made to have it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitask_core.text import TextEncoder, Windowing
from multitask_train import demo_corpus
from multitask_train.__main__ import main
from multitask_train.inspection.advice import percent
from multitask_train.inspection.counts import Spread
from multitask_train.inspection.pieces import lost_words, padding_share
from multitask_train.inspection.repeats import fold
from multitask_train.inspection.show import MAX_ROWS, table
from tiny import wordpiece


class Seen(NamedTuple):
    """One run of the command."""

    status: int
    text: str
    values: dict[str, Any]
    errors: str

    def split(self, name: str) -> dict[str, Any]:
        split: dict[str, Any] = self.values["splits"][name]
        return split

    @property
    def advice(self) -> str:
        return "\n".join(f"{one['level']}: {one['text']}" for one in self.values["advice"])


Look = Callable[..., Seen]
CITY = ("bath", "city")


@pytest.fixture
def look(tiny_encoder: Path, capsys: pytest.CaptureFixture[str]) -> Look:
    def run(*words: str | Path) -> Seen:
        window = ["--max-length", "32", "--stride", "8"]
        status = main(["inspect", *map(str, words), "--encoder", str(tiny_encoder), *window])
        out, errors = capsys.readouterr()
        *lines, last = out.splitlines()
        return Seen(status, "\n".join(lines), json.loads(last), errors)

    return run


def write(path: Path, *records: object) -> Path:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in records)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def sentence(text: str, label: str | None = None, *entities: tuple[str, str]) -> dict[str, Any]:
    """A record whose entities are given as (words of the text, type)."""
    spans = [
        {"start": text.index(words), "end": text.index(words) + len(words), "type": name}
        for words, name in entities
    ]
    return {"text": text, "label": label, "entities": spans if entities else None}


def test_annotation_is_counted_for_each_split(look: Look, tmp_path: Path) -> None:
    write(
        tmp_path / "train.jsonl",
        *(sentence(f"play {n}", "music") for n in "abcde"),
        sentence("rain in bath", "weather", ("bath", "city")),
        sentence("in york and rome", None, ("york", "city"), ("rome", "place")),
        {"text": "nothing here", "label": "weather", "entities": []},
    )
    write(tmp_path / "dev.jsonl", sentence("wake me", "alarm"), sentence("hum", "music"))
    seen = look(tmp_path)
    train = seen.split("train")
    assert seen.status == 0
    assert (train["sentences"], train["labelled"], train["tagged"], train["both"]) == (8, 7, 3, 2)
    assert train["labels"]["music"] == {"count": 5, "share": 0.7143}
    assert list(train["labels"]) == ["music", "weather"]
    assert train["imbalance"] == 2.5
    assert {name: one["count"] for name, one in train["types"].items()} == {"city": 2, "place": 1}
    assert seen.values["rare"] == {"labels": {"weather": 2}, "types": {"city": 2, "place": 1}}
    assert "1 label of train with fewer than 5 examples (weather: 2)" in seen.advice
    rows = {line.split("  ")[0]: line.split() for line in seen.text.splitlines() if line}
    assert rows["music"] == ["music", "5", "71.4%", "1", "50.0%"]
    assert rows["alarm"] == ["alarm", "0", "0.0%", "1", "50.0%"]


def test_names_that_a_split_lacks_are_told_both_ways(look: Look, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", sentence("in bath", "a", ("bath", "city")), sentence("b", "b"))
    write(tmp_path / "dev.jsonl", sentence("at six", "a", ("six", "time")))
    write(tmp_path / "test.jsonl", sentence("zed", "z"))
    seen = look(tmp_path)
    found = {
        (one["what"], one["here"], one["there"]): one["names"] for one in seen.values["absent"]
    }
    assert found == {
        ("labels", "train", "dev"): ["b"],
        ("labels", "test", "train"): ["z"],
        ("labels", "train", "test"): ["a", "b"],
        ("types", "dev", "train"): ["time"],
        ("types", "train", "dev"): ["city"],
    }
    assert "test has 1 label that train lacks (z): no model answers them" in seen.advice
    assert "dev lacks 1 entity type of train (city)" in seen.advice
    assert seen.status == 0


def test_an_unequal_corpus_is_told(look: Look, tmp_path: Path) -> None:
    records = [sentence(f"play {n}", "music") for n in "abcdefghij"]
    seen = look(write(tmp_path / "train.jsonl", *records, sentence("wake", "alarm")))
    assert "has 10 times the sentences of the rarest: judge by macro F1" in seen.advice
    seen = look(write(tmp_path / "train.jsonl", *records[1:], sentence("wake", "alarm")))
    assert "times the sentences" not in seen.advice
    seen = look(write(tmp_path / "train.jsonl", *records))
    assert "all sentences of train carry one label" in seen.advice


def test_words_without_pieces_have_place_and_code_points(look: Look, tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        {"tokens": ["play", "jazz"], "tags": ["O", "B-genre"]},
        {"tokens": ["\u200b", "jazz", "\ufeff\u200b"], "tags": ["B-mark", "B-genre", "O"]},
        {"tokens": ["\u200b"], "tags": ["O"]},
        {"text": "wake \u200b me\u200b", "label": "alarm"},
    )
    train = look(path).split("train")
    lost, empty = train["tokens"]["lost_words"], train["tokens"]["empty_texts"]
    assert lost["count"] == 4
    assert lost["first"][:2] == [
        rf"{path}:2: '\u200b' (U+200B)",
        rf"{path}:2: '\ufeff\u200b' (U+FEFF U+200B)",
    ]
    assert lost["first"][3] == rf"{path}:4: '\u200b' (U+200B)"
    assert (empty["count"], empty["first"]) == (1, [rf"{path}:3: '\u200b' (U+200B)"])
    changed = train["tokens"]["changed_entities"]
    assert changed["count"] == 1
    assert changed["first"][0].startswith(rf"{path}:2: mark 0:1 '\u200b' in ")
    assert changed["first"][0].endswith("learned instead: nothing")


def test_unknown_pieces_are_counted_by_word(look: Look, tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        sentence("a ☃ b ☃ ☂", "weather"),
        sentence("a b c", "letters"),
    )
    seen = look(path)
    tokens = seen.split("train")["tokens"]
    assert (tokens["unknown"], tokens["unknown_words"]) == (3, {"☃": 2, "☂": 1})
    assert tokens["unknown_share"] == pytest.approx(3 / 8)
    assert "commonest words with unknown pieces\n  '☃' 2, '☂' 1" in seen.text
    assert "3 word pieces of train (37.5%) unknown" in seen.advice


def test_texts_beyond_the_window(look: Look, tmp_path: Path) -> None:
    long = "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9"
    seen = look(write(tmp_path / "train.jsonl", sentence(long, "x"), sentence("a b", "y")))
    tokens = seen.split("train")["tokens"]
    (encoded,) = TextEncoder(wordpiece(), Windowing(32, 8))([long])
    assert len(encoded.windows) > 1
    assert (tokens["long_texts"], tokens["long_windows"]) == (1, len(encoded.windows))
    assert tokens["windows"] == len(encoded.windows) + 1
    assert tokens["pieces"] == {"mean": 19.0, "p50": 36, "p95": 36, "p99": 36, "max": 36}
    assert "1 text of train (longest: 36 word pieces) beyond the window of 32" in seen.advice


def test_spread_is_made_of_values_that_occur() -> None:
    assert Spread.of(range(1, 101)) == Spread(50.5, 51, 96, 100, 100)
    assert Spread.of([]) == Spread(0.0, 0, 0, 0, 0)


def test_padding_by_hand() -> None:
    assert padding_share([1, 3], pool=0) == pytest.approx(1 - 4 / 6)
    assert padding_share([], pool=0) == padding_share([], pool=32) == 0
    mixed = [4] * 320 + [8] * 320
    assert padding_share(mixed, pool=20) == 0
    # Nearly every random batch of 32 holds a long row: 12 tokens are real for 16 computed.
    assert padding_share(mixed, pool=0) == pytest.approx(0.25, abs=0.02)
    assert padding_share(mixed, pool=1) == padding_share(mixed, pool=0)


@given(
    st.lists(st.integers(0, 12), min_size=0, max_size=10, unique=True),
    st.lists(st.integers(0, 12), min_size=0, max_size=10, unique=True),
)
def test_lost_words_are_those_that_nothing_touches(left: list[int], right: list[int]) -> None:
    def spans(marks: list[int]) -> list[tuple[int, int]]:
        marks = sorted(marks)
        return list(zip(marks[::2], marks[1::2], strict=False))

    words, kept = spans(left), spans(right)
    touched = [one for one in words if any(a < one[1] and one[0] < b for a, b in kept)]
    assert lost_words(words, kept) == [one for one in words if one not in touched]


def test_bio_faults_name_word_and_line(look: Look, tmp_path: Path) -> None:
    tags = ["I-city", "O", "B-city", "I-genre", "I-genre", "I-city", "I-city", "B-genre"]
    record = {"tokens": list("abcdefgh"), "tags": tags}
    path = write(tmp_path / "train.jsonl", {"tokens": ["a"], "tags": ["B-city"]}, record)
    seen = look(path)
    faults = seen.split("train")["tag_faults"]
    assert faults["count"] == 3
    assert faults["first"][0].startswith(f"{path}:2: word 1 'a': I-city continues nothing; it is")
    assert faults["first"][1].startswith(f"{path}:2: word 4 'd': I-genre changes the type inside")
    assert faults["first"][2].startswith(f"{path}:2: word 6 'f': I-city changes the type inside")
    assert "3 BIO tags of train continue no entity" in seen.advice
    assert seen.status == 0


def test_bio_faults_of_columns_and_folders(look: Look, tmp_path: Path) -> None:
    conll = write(tmp_path / "a.conll", "# label: x", "in O", "york I-city", "", "b B-city")
    assert look(conll).split("data")["tag_faults"]["first"][0].startswith(f"{conll}:2: word 2")
    folder = tmp_path / "test"
    folder.mkdir()
    write(folder / "seq.in", "a", "in york")
    write(folder / "seq.out", "B-city", "O I-city")
    write(folder / "label", "x", "y")
    seen = look(folder)
    assert seen.split("test")["tag_faults"]["first"][0].startswith(f"{folder}/seq.in:2: word 2")


def test_only_the_first_ten_findings_are_shown(look: Look, tmp_path: Path) -> None:
    records = [{"tokens": [f"w{n}"], "tags": ["I-city"]} for n in range(13)]
    seen = look(write(tmp_path / "train.jsonl", *records))
    faults = seen.split("train")["tag_faults"]
    assert (faults["count"], len(faults["first"])) == (13, 10)
    assert "train: BIO tags that continue nothing: 13" in seen.text
    assert "  … and 3 more" in seen.text


def test_contradictory_repeats(look: Look, tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        sentence("play jazz", "music", ("jazz", "genre")),
        sentence("play jazz", "music", ("jazz", "genre")),
        sentence("PLAY  jazz", "music", ("jazz", "genre")),
        sentence("play jazz", None, ("play", "verb")),
        sentence("wake me", "alarm"),
        sentence("wake me", None, ("me", "person")),
        sentence("Wake me", "music"),
        {"text": "no entity", "entities": []},
    )
    seen = look(path)
    repeats = seen.split("train")["repeats"]
    assert (repeats["exact"], repeats["folded"]) == (3, 5)
    assert repeats["contradictions"]["count"] == 2
    entities, labels = repeats["contradictions"]["first"]
    assert entities == (
        f"{path}:1 and {path}:2 and 2 more 'play jazz': entities genre 'jazz' against verb 'play'"
    )
    assert labels == f"{path}:5 and {path}:6 and 1 more 'wake me': labels alarm, music"
    assert "2 texts of train with several labels or entities" in seen.advice
    assert "5 sentences of train (62.5%) repeat an earlier one" in seen.advice


def test_the_same_entity_elsewhere_in_the_text_is_a_contradiction(
    look: Look, tmp_path: Path
) -> None:
    def paris(start: int, text: str = "paris to paris") -> dict[str, Any]:
        return {"text": text, "entities": [{"start": start, "end": start + 5, "type": "city"}]}

    same = write(tmp_path / "train.jsonl", paris(9), paris(11, "Paris  to  Paris"))
    assert look(same).split("train")["repeats"]["contradictions"]["count"] == 0
    other = write(tmp_path / "train.jsonl", paris(9), paris(0))
    assert look(other).split("train")["repeats"]["contradictions"]["count"] == 1


def test_overlap_of_splits(look: Look, tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.jsonl", *(sentence(f"play {n}", "music") for n in ("a", "b", "c"))
    )
    write(tmp_path / "dev.jsonl", sentence("hum", "music"))
    test = write(
        tmp_path / "test.jsonl",
        sentence("play a", "music"),
        sentence(" Play\tB ", "music"),
        sentence("play c", "other"),
        sentence("hum", "music"),
        sentence("play d", "music"),
    )
    seen = look(tmp_path)
    pairs = {(one["split"], one["within"]): one for one in seen.values["overlaps"]}
    assert set(pairs) == {("dev", "train"), ("test", "train"), ("test", "dev")}
    found = pairs["test", "train"]
    counts = [found[key] for key in ("sentences", "folded", "exact", "contradictions")]
    assert counts == [5, 3, 2, 1]
    assert found["found"]["first"] == [
        f"{test}:1 and {train}:1 'play a'",
        f"{test}:2 and {train}:2 'play b'",
        f"{test}:3 and {train}:3 'play c': labels music, other",
    ]
    assert pairs["test", "dev"]["folded"] == 1
    assert pairs["dev", "train"]["folded"] == 0
    assert (
        "3 of 5 test sentences also stand in train (1 in other letter case or white space): "
        "the test figure flatters"
    ) in seen.advice
    assert "1 of these has other labels or entities in train" in seen.advice
    assert "dev sentences also" not in seen.advice


def test_a_text_that_stands_in_both_splits_very_often(look: Look, tmp_path: Path) -> None:
    hm = [sentence("hm", "yes"), sentence("hm", "no")]
    write(tmp_path / "train.jsonl", *[sentence("ok", "yes")] * 4000, *hm)
    write(tmp_path / "test.jsonl", *[sentence("ok", "yes")] * 3999, sentence("ok", "sure"), hm[0])
    (found,) = look(tmp_path).values["overlaps"]
    assert (found["folded"], found["contradictions"]) == (4001, 2)


def test_texts_are_folded_by_case_and_white_space_alone() -> None:
    assert fold(" Straße\u00a0 1 ") == fold("STRASSE 1") == "strasse 1"
    assert fold("a.b") != fold("a b")


BROKEN = {
    "no JSON": "{",
    "a JSON object is needed, got list": "[]",
    "neither 'text' nor 'tokens'": "{}",
    "the text is empty": '{"text": " ", "label": "a"}',
    "neither a label nor entities": '{"text": "a"}',
    "does not lie in the text": '{"text": "a", "entities": [{"start": 2, "end": 5, "type": "q"}]}',
    "2 tokens but 1 tags": '{"tokens": ["a", "b"], "tags": ["O"]}',
    "'X' is no BIO tag": '{"tokens": ["a"], "tags": ["X"]}',
    "carriage return inside the line": '{"text": "a",\r"label": "a"}',
}


def test_every_fault_is_listed_and_the_rest_is_measured(look: Look, tmp_path: Path) -> None:
    good = json.dumps(sentence("play jazz", "music"))
    lines = [line for broken in BROKEN.values() for line in (broken, good)]
    path = tmp_path / "train.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "caf\xe9", "label": "a"}\n')
    seen = look(path)
    faults = seen.values["faults"]
    assert (seen.status, seen.values["trainable"]) == (1, False)
    assert faults["count"] == len(BROKEN) + 1
    for number, (fault, reason) in enumerate(zip(faults["first"], BROKEN, strict=False)):
        assert fault.startswith(f"{path}:{2 * number + 1}: ")
        assert reason in fault
        assert f"  {fault}" in seen.text
    assert faults["first"][-1].startswith(f"{path}:{2 * len(BROKEN) + 1}: not UTF-8 at byte 14")
    assert seen.split("train")["faulty_records"] == len(BROKEN) + 1
    assert seen.split("train")["sentences"] == len(BROKEN)
    assert seen.advice.startswith(f"fault: {len(BROKEN) + 1} faults in what was read")
    assert f"error: `fit` cannot train on this: {path}:1: no JSON" in seen.errors


def test_fifty_faults_are_shown(look: Look, tmp_path: Path) -> None:
    seen = look(write(tmp_path / "train.jsonl", *["{"] * 60))
    assert seen.values["faults"]["count"] == 60
    assert len(seen.values["faults"]["first"]) == 50
    assert "records that cannot be read: 60" in seen.text
    assert "  … and 10 more" in seen.text
    assert seen.split("train")["sentences"] == 0
    assert seen.status == 1


def test_an_empty_split_is_a_fault(look: Look, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", sentence("hum", "music"))
    write(tmp_path / "dev.jsonl")
    seen = look(tmp_path)
    assert seen.status == 1
    assert seen.values["faults"]["first"] == [
        f"{tmp_path} (dev) holds no example; fill it, or leave this split out"
    ]
    assert seen.split("dev")["sentences"] == 0
    assert seen.split("train")["sentences"] == 1


def test_a_cut_archive_is_measured_up_to_the_cut(look: Look, tmp_path: Path) -> None:
    lines = "".join(json.dumps(sentence(f"play {n}", "music")) + "\n" for n in range(20_000))
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode())[:-2000])
    seen = look(path)
    (fault,) = seen.values["faults"]["first"]
    assert fault.startswith(f"{path}:{seen.split('train')['sentences'] + 1}: cannot read the file")
    assert seen.split("train")["sentences"] > 0
    assert seen.status == 1


def test_parallel_files_of_different_lengths(look: Look, tmp_path: Path) -> None:
    write(tmp_path / "seq.in", "a", "b")
    write(tmp_path / "seq.out", "O")
    write(tmp_path / "label", "x", "y")
    seen = look(tmp_path)
    assert "different numbers of lines" in seen.values["faults"]["first"][0]
    assert seen.status == 1


def test_classification_alone(look: Look, tmp_path: Path) -> None:
    records = [sentence(f"where is card {n}", f"intent_{n % 7}") for n in range(70)]
    write(tmp_path / "train.jsonl", *records)
    write(tmp_path / "test.jsonl", *records[:3], sentence("my pin", "intent_1"))
    seen = look(tmp_path)
    assert seen.status == 0
    assert seen.split("train")["types"] == {}
    assert "entity type  " not in seen.text
    assert "no sentence of train carries entities" in seen.advice
    assert "there is no dev" in seen.advice


def test_entities_alone(look: Look, tmp_path: Path) -> None:
    write(tmp_path / "train.conll", "in O", "bath B-geo-loc", "", "at O", "the B-x.y", "spa I-x.y")
    write(tmp_path / "valid.conll", "bath B-geo-loc")
    seen = look(tmp_path)
    assert (seen.status, list(seen.values["splits"])) == (0, ["train", "dev"])
    assert seen.split("train")["labels"] == {}
    assert set(seen.split("train")["types"]) == {"geo-loc", "x.y"}
    assert "no sentence of train carries labels" in seen.advice
    assert not [one for one in seen.values["absent"] if one["what"] == "labels"]


def test_the_demo_corpus_is_sound(look: Look) -> None:
    seen = look("demo")
    assert seen.status == 0
    for split, examples in demo_corpus.build().items():
        found = seen.split(split)
        assert found["sentences"] == found["both"] == len(examples)
        assert found["repeats"]["folded"] == found["tag_faults"]["count"] == 0
        assert found["tokens"]["lost_words"]["count"] == 0
    assert {one["folded"] for one in seen.values["overlaps"]} == {0}


def test_files_are_splits_by_name_or_prefix(look: Look, tmp_path: Path) -> None:
    one = write(tmp_path / "mine.jsonl", sentence("hum", "music"))
    other = write(tmp_path / "more.jsonl", sentence("hum", "music"), sentence("sing", "music"))
    valid = write(tmp_path / "valid.en.jsonl", sentence("hum", "music"))
    assert list(look(one).values["splits"]) == ["data"]
    assert list(look(valid).values["splits"]) == ["dev"]
    seen = look(f"train={one}", f"train={other}", f"test={one}")
    assert {name: split["sentences"] for name, split in seen.values["splits"].items()} == {
        "train": 3,
        "test": 1,
    }
    assert seen.values["overlaps"][0]["exact"] == 1


def test_a_dev_that_measures_one_head_is_told(look: Look, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", sentence("hum", "music"), sentence("in bath", None, CITY))
    write(tmp_path / "dev.jsonl", sentence("at bath", None, CITY))
    assert "dev carries no labels, which train has" in look(tmp_path).advice
    write(tmp_path / "dev.jsonl", sentence("at bath", "travel", CITY))
    assert "dev carries no" not in look(tmp_path).advice
    write(tmp_path / "dev.jsonl", sentence("sing", "music"))
    assert "dev carries no entities, which train has" in look(tmp_path).advice


def test_chosen_splits_and_the_json_file(look: Look, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write(tmp_path / f"{split}.jsonl", sentence(f"{split} é", "music"))
    seen = look(
        tmp_path, "--split", "dev", "--split", "test", "--json", tmp_path / "out" / "a.json"
    )
    assert list(seen.values["splits"]) == ["dev", "test"]
    assert json.loads((tmp_path / "out" / "a.json").read_text("utf-8")) == seen.values
    assert "there is no dev" not in seen.advice


def test_nothing_to_mend(look: Look, tmp_path: Path) -> None:
    records = [
        sentence(f"{verb} jazz {n}", verb, ("jazz", "genre"))
        for verb in ("play", "hum")
        for n in range(5)
    ]
    seen = look(write(tmp_path / "train.jsonl", *records))
    assert seen.values["advice"] == []
    assert seen.text.endswith("nothing to mend was found")


def test_a_small_share_is_not_called_none() -> None:
    assert [percent(share) for share in (0, 0.0004, 0.001, 0.5)] == [
        "0.0%",
        "under 0.1%",
        "0.1%",
        "50.0%",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no nowhere; use a .jsonl"),
        (["demo", "--json", "/dev/null/a.json"], "--json /dev/null/a.json: cannot write there"),
        (["demo", "--max-length", "4"], "max_length must be at least 8"),
    ],
)
def test_wrong_use_is_one_clear_line(
    words: list[str], message: str, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--encoder", str(tiny_encoder), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_folder_without_splits(tiny_encoder: Path, tmp_path: Path, capsys) -> None:
    assert main(["inspect", str(tmp_path), "--encoder", str(tiny_encoder)]) == 1
    assert "holds no entry named train, dev, valid or test" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough(tiny_encoder: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    words = ["inspect", "demo", "--encoder", str(tiny_encoder), "--json", str(output)]
    command = [sys.executable, "-m", "multitask_train", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0
    assert json.loads(output.read_text("utf-8"))["trainable"]


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    text = capsys.readouterr().out
    assert "exit status:" in text
    assert "dev=my-file.jsonl" in text
    assert "minilm" in text


def test_tables_are_aligned_and_bounded(look: Look, tmp_path: Path) -> None:
    assert table(["", "n"], [["one", "1"], ["eleven", "1,100"]]) == (
        "            n\none         1\neleven  1,100"
    )
    records = [sentence(f"w{n}", f"label {n}") for n in range(MAX_ROWS + 3)]
    seen = look(write(tmp_path / "train.jsonl", *records))
    assert "… and 3 more, all of them with --json" in seen.text
    assert len(seen.split("train")["labels"]) == MAX_ROWS + 3
