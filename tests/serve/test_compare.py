"""Two versions are compared fairly, and the budgets say what may differ."""

from __future__ import annotations

import gzip
import json

import pytest

from multitask_client.errors import BadRequest
from multitask_core.errors import ConfigError, DataError
from multitask_core.prediction import Entity, Prediction
from multitask_serve.compare import Budget, Sentence, compare, read_sentences

CITY = Entity("city", "Paris", 0, 5, 0.9)
TIME = Entity("time", "noon", 9, 13, 0.9)


class FakeClient:
    """Answers from a table and notes what was asked."""

    def __init__(self, name, table, asked):
        self.name, self.table, self.asked = name, table, asked

    def predict_each(self, texts):
        (text,) = texts
        self.asked.append((self.name, text))
        label, entities = self.table[text]
        if label is None:
            return [BadRequest("too long")]
        return [Prediction(label, {label: 1.0}, tuple(entities))]


@pytest.fixture
def sentences():
    return [
        Sentence("Paris at noon", "trip", frozenset({(0, 5, "city"), (9, 13, "time")})),
        Sentence("Paris", "trip", frozenset({(0, 5, "city")})),
        Sentence("hello", "greeting", frozenset()),
        Sentence("unknown"),
    ]


def run(sentences, live, new):
    asked = []
    found = compare(FakeClient("live", live, asked), FakeClient("new", new, asked), sentences)
    return found, asked


@pytest.fixture
def table():
    return {
        "Paris at noon": ("trip", [CITY, TIME]),
        "Paris": ("trip", [CITY]),
        "hello": ("greeting", []),
        "unknown": ("trip", []),
    }


def test_equal_answers_are_no_change(sentences, table):
    found, asked = run(sentences, table, table)
    assert (found.label_changes, found.entity_changes) == (0, 0)
    assert (found.live.accuracy, found.live.f1) == (1, 1)
    assert found.refusals(Budget(latency=1e9)) == []
    for name in ("live", "new"):
        # The first sentence once more: it opens the connection.
        assert [text for side, text in asked if side == name] == [
            sentences[0].text,
            *(one.text for one in sentences),
        ]
    turns = [side for side, _ in asked[2:]]
    assert turns == ["new", "live", "live", "new", "new", "live", "live", "new"]


def test_changes_are_shares_of_the_sentences_and_gold_is_counted(sentences, table):
    other = {
        **table,
        "Paris at noon": ("trip", [CITY]),
        "hello": ("trip", []),
        "unknown": ("greeting", [TIME]),
    }
    found, _ = run(sentences, table, other)
    assert (found.label_changes, found.entity_changes) == (0.5, 0.5)
    assert found.new.accuracy == pytest.approx(2 / 3)
    # 2 right of 3 marked and 2 found among the annotated sentences.
    assert found.new.f1 == pytest.approx(2 * 2 / 5)
    refusals = found.refusals(Budget(latency=1e9))
    assert refusals == [
        "labels changed in 50.0% of 4 sentences, 2.0% allowed (--max-label-changes)",
        "entities changed in 50.0% of 4 sentences, 5.0% allowed (--max-entity-changes)",
    ]
    assert found.refusals(Budget(0.5, 0.5, 1e9)) == []


def test_a_span_that_moved_changed_and_its_score_does_not_count(sentences, table):
    moved = Entity("city", "Pari", 0, 4, 0.9)
    surer = Entity("city", "Paris", 0, 5, 0.1)
    found, _ = run(sentences, table, {**table, "Paris": ("trip", [moved])})
    assert found.entity_changes == 0.25
    found, _ = run(sentences, table, {**table, "Paris": ("trip", [surer])})
    assert found.entity_changes == 0


def test_a_sentence_that_is_refused_changed(sentences, table):
    found, _ = run(sentences, table, {**table, "hello": (None, [])})
    assert (found.label_changes, found.entity_changes, found.new.refused) == (0.25, 0.25, 1)
    found, _ = run(sentences, {**table, "hello": (None, [])}, {**table, "hello": (None, [])})
    assert (found.label_changes, found.entity_changes) == (0, 0)


def test_without_annotation_there_is_no_agreement(table):
    found, _ = run([Sentence("unknown")], table, table)
    assert (found.live.accuracy, found.new.f1) == (None, None)
    assert "–" in found.table(1, 2)
    assert json.loads(json.dumps(found.to_dict()))["live"]["accuracy"] is None


def test_a_slower_version_is_refused(sentences, table):
    found, _ = run(sentences, table, table)
    (reason,) = found.refusals(Budget(latency=found.latency_ratio / 2))
    assert "times the live one's" in reason
    assert "--max-latency-ratio" in reason


def test_the_table_names_both_versions(sentences, table):
    found, _ = run(sentences, table, table)
    lines = found.table(3, 7).splitlines()
    assert lines[0] == "4 sentences, asked in turns:"
    assert lines[1].split() == ["version", "3,", "live", "version", "7,", "new"]


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ((-0.1, 0.0, 1.0), "--max-label-changes -0.1"),
        ((0.0, 1.1, 1.0), "--max-entity-changes 1.1"),
        ((0.0, 0.0, 0.0), "--max-latency-ratio 0"),
    ],
)
def test_impossible_budgets_are_refused(values, flag):
    with pytest.raises(ConfigError, match=flag):
        Budget(*values)


@pytest.mark.parametrize("name", ["some.jsonl", "some.jsonl.gz"])
def test_sentences_are_read(tmp_path, name):
    lines = [
        {
            "text": "Zoë in Paris",
            "label": "trip",
            "entities": [{"start": 7, "end": 12, "type": "city"}],
        },
        {"text": "no gold"},
    ]
    data = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_sentences(path) == [
        Sentence("Zoë in Paris", "trip", frozenset({(7, 12, "city")})),
        Sentence("no gold"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"label": "b"}', "line 2: KeyError: 'text'"),
        (b"[1]", "line 1: AttributeError"),
        (b'{"text": 1}', "line 1: TypeError: text and label must be strings"),
        (b'{"text": "a", "entities": [{"start": 1}]}', "line 1: KeyError: 'end'"),
        (b"{", "line 1: JSONDecodeError"),
        (b" \n", "holds no sentences"),
        (b"\xff", "cannot read the sentences"),
    ],
)
def test_broken_sentences_are_named(tmp_path, content, message):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_sentences(path)
