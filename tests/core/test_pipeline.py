"""Text → Prediction with an encoder whose answer is known for every piece."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitask_core.batching import pad_rows, unpad_rows
from multitask_core.decode import best_tags, decode, softmax
from multitask_core.errors import InputError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_core.text import EncodedText, TextEncoder, Window, Windowing
from tiny import wordpiece

SCHEMA = LabelSchema(("short", "long"), ("digit", "letter"))
TOKENIZER = wordpiece()
DIGITS = {TOKENIZER.token_to_id(digit) for digit in "0123456789"}


class KnownEncoder:
    """Tags every digit B-digit; the label is `long` for rows with more than 8 pieces."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, rows):
        ids, mask = pad_rows(rows)
        self.shapes.append(ids.shape)
        tokens = np.zeros((*ids.shape, 5), np.float32)
        tokens[..., 0] = 4
        tokens[..., 1] = np.where(np.isin(ids, list(DIGITS)), 8, 0)
        classes = np.stack([8.0 - mask.sum(1), mask.sum(1) - 8.0], 1).astype(np.float32)
        return unpad_rows(rows, classes, tokens)


@pytest.fixture
def encoder() -> KnownEncoder:
    return KnownEncoder()


@pytest.fixture
def pipeline(encoder: KnownEncoder) -> Pipeline:
    text_encoder = TextEncoder(TOKENIZER, Windowing(16, 4))
    return Pipeline(text_encoder, encoder, SCHEMA, token_budget=64, max_chars=100_000)


def spans(prediction) -> list[tuple[str, int, int, str]]:
    return [(one.type, one.start, one.end, one.text) for one in prediction.entities]


def test_entities_carry_exact_offsets(pipeline: Pipeline) -> None:
    text = "é 😀 at 7, ok"
    assert spans(pipeline.predict([text])[0]) == [("digit", 7, 8, "7")]


def test_an_entity_at_the_end_of_a_long_document(pipeline: Pipeline) -> None:
    text = "a b c. " * 4500 + "call 5 now"
    answer = pipeline.predict([text])[0]
    assert spans(answer) == [("digit", text.index("5"), text.index("5") + 1, "5")]
    assert answer.label == "long"


def test_batched_and_alone_agree(pipeline: Pipeline) -> None:
    texts = ["7 a", "b " * 40 + "3", "c", "9 " * 9]
    assert pipeline.predict(texts) == [pipeline.predict([text])[0] for text in texts]


def test_batches_keep_the_token_budget(pipeline: Pipeline, encoder: KnownEncoder) -> None:
    pipeline.predict(["a b c d e f g h i j k l"] * 20)
    assert all(rows * length <= 64 for rows, length in encoder.shapes)
    assert len(encoder.shapes) < 20


def test_bad_texts_fail_alone(pipeline: Pipeline) -> None:
    answers = pipeline.predict_each(["7", "", "x" * 100_001, "\udcff", "8"])
    assert [type(one) is InputError for one in answers] == [False, True, True, True, False]


def test_predict_names_the_bad_text(pipeline: Pipeline) -> None:
    with pytest.raises(InputError, match="text 1: the text is empty"):
        pipeline.predict(["a", " "])


def test_nothing_in_nothing_out(pipeline: Pipeline) -> None:
    assert pipeline.predict([]) == []


def encoded(words: int, windows: list[Window]) -> EncodedText:
    text = " ".join("w" * words)
    pieces = list(range(words))
    return EncodedText(text, pieces, [(2 * i, 2 * i + 1) for i in pieces], pieces, windows)


def one_hot(tags: list[int]) -> np.ndarray:
    return np.eye(5, dtype=np.float32)[tags] * 9


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([0, 1, 2, 0], [("digit", 2, 5)]),
        ([1, 1, 0, 0], [("digit", 0, 1), ("digit", 2, 3)]),
        ([1, 3, 0, 0], [("digit", 0, 1), ("letter", 2, 3)]),
        ([3, 4, 4, 4], [("letter", 0, 7)]),
        ([0, 0, 0, 0], []),
    ],
)
def test_tags_become_spans(tags: list[int], expected: list[tuple[str, int, int]]) -> None:
    classes = np.zeros((1, 2), np.float32)
    answer = decode(encoded(4, [Window(0, 4)]), classes, [one_hot(tags)], SCHEMA)
    assert [(one.type, one.start, one.end) for one in answer.entities] == expected


def test_a_name_over_whose_type_two_tags_compete_stays_whole() -> None:
    # Word by word B-digit I-letter, which is no entity; as a whole it rather is a letter.
    logits = np.array([[0, 5, 0, 4, 0], [0, 0, 1, 0, 6]], np.float32)
    answer = decode(encoded(2, [Window(0, 2)]), np.zeros((1, 2), np.float32), [logits], SCHEMA)
    assert [(one.type, one.start, one.end) for one in answer.entities] == [("letter", 0, 3)]
    probabilities = softmax(logits)
    expected = (probabilities[0, 3] + probabilities[1, 4]) / 2
    assert answer.entities[0].score == pytest.approx(expected)


@given(
    seed=st.integers(0, 2**31),
    words=st.integers(1, 5),
    kinds=st.integers(1, 2),
    scale=st.sampled_from([0.01, 1, 30]),
)
@settings(deadline=None)
def test_best_tags_are_the_best_of_all_valid_rows(
    seed: int, words: int, kinds: int, scale: float
) -> None:
    tags = 1 + 2 * kinds
    logits = np.random.default_rng(seed).normal(0, scale, (words, tags)).astype(np.float32)

    def valid(row: tuple[int, ...]) -> bool:
        pairs = zip((0, *row), row, strict=False)
        return all(tag == 0 or tag % 2 or before in (tag, tag - 1) for before, tag in pairs)

    rows = filter(valid, itertools.product(range(tags), repeat=words))
    best = max(rows, key=lambda row: float(logits[np.arange(words), row].sum(dtype=np.float64)))
    assert best_tags(logits).tolist() == list(best)


def test_a_word_is_read_where_it_has_most_context() -> None:
    windows = [Window(0, 6), Window(3, 9)]
    left, right = one_hot([0, 0, 0, 0, 1, 1]), one_hot([1, 0, 0, 0, 0, 1])
    answer = decode(encoded(9, windows), np.zeros((2, 2), np.float32), [left, right], SCHEMA)
    # Words 3 and 4: the left window shows 2 and 1 to the right, the right one 0 and 1 to the left.
    assert [one.start // 2 for one in answer.entities] == [4, 8]


def test_the_label_pools_the_windows_logits() -> None:
    windows = [Window(0, 3), Window(2, 4)]
    classes = np.array([[3, 0], [0, 5]], np.float32)
    answer = decode(encoded(4, windows), classes, [one_hot([0] * 3), one_hot([0] * 2)], SCHEMA)
    assert answer.label == "long"
    assert answer.scores["long"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    assert sum(answer.scores.values()) == pytest.approx(1)


def test_softmax_does_not_overflow() -> None:
    assert softmax(np.array([1e4, 0], np.float32)).tolist() == [1.0, 0.0]


def test_the_longest_texts_cost_no_more_than_their_length(encoder: KnownEncoder) -> None:
    """Merging windows takes memory in proportion to the text, not to its square."""
    import tracemalloc

    text_encoder = TextEncoder(TOKENIZER, Windowing(16, 4))
    pipeline = Pipeline(text_encoder, encoder, SCHEMA, max_chars=10**6, max_pieces=10**6)
    tracemalloc.start()
    (answer,) = pipeline.predict(["! " * 30_000 + "7"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spans(answer) == [("digit", 60_000, 60_001, "7")]
    assert peak < 100e6


def test_more_pieces_than_allowed_are_refused_alone(encoder: KnownEncoder) -> None:
    pipeline = Pipeline(TextEncoder(TOKENIZER), encoder, SCHEMA, max_pieces=50)
    long, short = pipeline.predict_each(["!" * 51, "!" * 50])
    assert "51 word pieces in 51 characters; at most 50 are allowed" in str(long)
    assert not isinstance(short, InputError)
