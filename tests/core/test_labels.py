"""Label schema and BIO tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitask_core.errors import ArtifactError, DataError
from multitask_core.labels import LabelSchema, bio_spans, span_tags, split_tag

TYPES = st.sampled_from(["city", "object_part-of", "B-", "O"])


@st.composite
def span_lists(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, str]]]:
    spans, position = [], 0
    for gap, length, name in draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), TYPES), max_size=6)
    ):
        spans.append((position + gap, position + gap + length, name))
        position += gap + length
    return position + draw(st.integers(0, 3)), spans


@given(span_lists())
def test_spans_to_tags_and_back(case: tuple[int, list[tuple[int, int, str]]]) -> None:
    length, spans = case
    assert bio_spans(span_tags(length, spans)) == spans


@given(st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=12))
def test_any_tags_give_spans_that_give_valid_tags(tags: list[str]) -> None:
    valid = span_tags(len(tags), bio_spans(tags))
    assert bio_spans(valid) == bio_spans(tags)
    assert [tag == "O" for tag in valid] == [tag == "O" for tag in tags]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["I-a", "I-a"], [(0, 2, "a")]),
        (["B-a", "I-b"], [(0, 1, "a"), (1, 2, "b")]),
        (["B-a", "B-a"], [(0, 1, "a"), (1, 2, "a")]),
        (["O", "I-a", "O"], [(1, 2, "a")]),
        ([], []),
    ],
)
def test_hard_tags(tags: list[str], spans: list[tuple[int, int, str]]) -> None:
    assert bio_spans(tags) == spans


def test_a_tag_is_split_at_its_first_hyphen() -> None:
    assert split_tag("B-object_part-of.x") == ("B", "object_part-of.x")


@pytest.mark.parametrize("tag", ["", "B", "B-", "X-city", "city", "o"])
def test_no_bio_tag(tag: str) -> None:
    with pytest.raises(DataError, match="no BIO tag"):
        split_tag(tag)


@pytest.mark.parametrize("spans", [[(0, 0, "a")], [(1, 3, "a")], [(0, 2, "a"), (1, 2, "b")]])
def test_impossible_spans(spans: list[tuple[int, int, str]]) -> None:
    with pytest.raises(DataError):
        span_tags(2, spans)


def test_tag_table(schema: LabelSchema) -> None:
    assert schema.tags[:3] == ("O", "B-city", "I-city")
    assert [schema.tag_ids[tag] for tag in schema.tags] == list(range(7))


def test_json_round_trip(schema: LabelSchema, tmp_path) -> None:
    schema.save(tmp_path / "labels.json")
    assert LabelSchema.load(tmp_path / "labels.json") == schema


@pytest.mark.parametrize(
    ("classes", "types", "message"),
    [
        ((), ("a",), "no classes"),
        (("a",), (), "no entity types"),
        (("a", "a"), ("b",), "a named more than once"),
        ((" a",), ("b",), "not a usable name"),
    ],
)
def test_bad_schema(classes: tuple[str, ...], types: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelSchema(classes, types)


@pytest.mark.parametrize("content", ["", "[]", '{"classes": ["a"]}'])
def test_broken_schema_file(tmp_path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"labels\.json"):
        LabelSchema.load(tmp_path / "labels.json")
