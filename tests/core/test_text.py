"""Tokens, words and windows: exact offsets, nothing lost."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from multitask_core import text
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.text import TextEncoder, Windowing, text_fault
from tiny import wordpiece

ENCODER = TextEncoder(wordpiece(), Windowing(12, 4))


def words(text: str, encoder: TextEncoder = ENCODER) -> list[str]:
    encoded = encoder([text])[0]
    return [encoded.text[start:end] for start, end in encoded.words]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_words_are_ordered_and_hold_no_white_space_at_their_ends(text: str) -> None:
    encoded = ENCODER([text])[0]
    position = 0
    for start, end in encoded.words:
        assert position <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        position = end


@given(st.text("ab ,é日😀", max_size=120))
def test_windows_cover_every_piece_and_never_split_a_word(text: str) -> None:
    encoded = ENCODER([text])[0]
    covered = {piece for start, stop in encoded.windows for piece in range(start, stop)}
    assert covered == set(range(len(encoded.ids)))
    starts = {*encoded.word_pieces, 0, len(encoded.ids)}
    longest = max(
        (right - left for left, right in zip(sorted(starts), sorted(starts)[1:], strict=False)),
        default=0,
    )
    for start, stop in encoded.windows:
        assert stop - start <= 10
        if longest <= 4:
            assert {start, stop} <= starts


def test_windows_overlap_by_about_the_stride() -> None:
    encoded = ENCODER(["a b c d e f g h i j k l m n o"])[0]
    assert encoded.windows == [(0, 10), (6, 15)]


def test_a_long_word_behind_others_makes_no_crowd_of_windows() -> None:
    """Where it does not fit behind the overlap the next window begins with it."""
    encoded = ENCODER(["a b c d e f " + "x" * 40 + " g h"])[0]
    assert encoded.windows[0] == (0, 6)
    stops = [stop for _, stop in encoded.windows]
    assert stops == sorted(set(stops))
    assert len(encoded.windows) <= 2 + len(encoded.ids) // 6


@given(st.lists(st.sampled_from(["a", "bb", "x" * 9, "x" * 30]), min_size=1, max_size=40))
def test_every_window_reaches_further(found: list[str]) -> None:
    encoded = ENCODER([" ".join(found)])[0]
    stops = [stop for _, stop in encoded.windows]
    assert stops == sorted(set(stops))
    assert all(start < stop for start, stop in encoded.windows)


def test_a_word_longer_than_a_window_is_covered() -> None:
    encoded = ENCODER(["x" * 95])[0]
    assert encoded.words == [(0, 95)]
    assert encoded.windows[-1].stop == 95


def test_offsets_count_code_points_of_the_text_as_sent() -> None:
    found = words("Zoë’s 😀 cafe\u0301, ＯＫ")
    assert found == ["Zoë", "’", "s", "😀", "cafe\u0301", ",", "ＯＫ"]


def test_a_text_without_pieces_still_has_a_window() -> None:
    encoded = ENCODER(["\u200b"])[0]
    assert encoded.words == []
    assert ENCODER.input_ids(encoded, encoded.windows[0]) == [2, 3]


def test_control_tokens_in_a_text_are_text() -> None:
    encoded = ENCODER(["say [SEP] [PAD]"])[0]
    assert not {0, 2, 3} & set(encoded.ids)
    assert [encoded.text[start:end] for start, end in encoded.words][1:4] == ["[", "SEP", "]"]


def test_special_tokens_frame_every_window() -> None:
    encoded = ENCODER(["one two three four five six"])[0]
    assert len(encoded.windows) > 1
    for window in encoded.windows:
        row = ENCODER.input_ids(encoded, window)
        assert (row[0], row[-1]) == (2, 3)
        assert len(row) <= 12


def sentencepiece_like() -> Tokenizer:
    pieces = [(piece, -1.0) for piece in ("<unk>", "▁", "▁hi", "▁pa", "ris", ",", "!", "a")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def test_sentencepiece_words_end_at_punctuation_and_hold_no_space() -> None:
    encoder = TextEncoder(sentencepiece_like(), Windowing(16, 4))
    assert words("hi paris, a!", encoder) == ["hi", "paris", ",", "a", "!"]


def test_byte_level_words_hold_no_space() -> None:
    alphabet = {
        piece: index for index, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder = TextEncoder(tokenizer, Windowing(64, 16))
    assert words("hi Zoë, é!", encoder) == ["hi", "Zoë", ",", "é", "!"]
    assert words("cafe\u0301 now", encoder) == ["cafe\u0301", "now"]  # parted before the accent
    assert words("\u0915\u093f\u0924", encoder)[0].startswith("\u0915\u093f")


def test_texts_are_tokenised_in_chunks_and_long_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("multitask_core.text._CHUNK_CHARS", 10)
    texts = ["a b c", "d e f g h i", "j", "x y " * 20, "k"]
    assert [*text._chunks(texts)] == [texts[:1], texts[1:2], texts[2:3], texts[3:4], texts[4:]]
    assert [*text._chunks(["a" * 5] * 3)] == [["a" * 5] * 2, ["a" * 5]]
    found = list(ENCODER.each(texts, 12))
    assert "the text has 40 word pieces in 80 characters; at most 12" in str(found[3])
    whole = ENCODER(texts)
    assert [one for at, one in enumerate(found) if at != 3] == [*whole[:3], whole[4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("x" * 11, "11 characters; at most 10"),
        ("a\udce9", "no valid Unicode"),
        (b"bytes", "must be str, got bytes"),
        (None, "must be str"),
    ],
)
def test_texts_that_are_refused(text: object, message: str) -> None:
    assert message in str(text_fault(text, max_chars=10))


def test_good_text_has_no_fault() -> None:
    assert text_fault("é" * 10, max_chars=10) is None


@pytest.mark.parametrize(("length", "stride"), [(4, 0), (16, 9), (16, -1)])
def test_impossible_windows(length: int, stride: int) -> None:
    with pytest.raises(ConfigError, match="max_length"):
        Windowing(length, stride)


def test_broken_tokenizer_file(tmp_path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        TextEncoder.from_file(tmp_path / "tokenizer.json")


def test_text_needs_no_torch() -> None:
    import subprocess

    code = "import sys, multitask_core.pipeline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
