"""`model.keep_case`: an uncased encoder tells capitals, with the pieces that it always had."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
)

from multitask_core.config import parse
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.pipeline import Pipeline
from multitask_export.export import export_artifact
from multitask_train import checkpoint
from multitask_train.data import Example, Span
from multitask_train.data.examples import write_jsonl
from multitask_train.fit import fit
from multitask_train.letter_case import MARK, keep_case
from multitask_train.settings import FitSettings
from tiny import SENTENCES, random_model, wordpiece

# Names stand in capitals and nothing else tells them.
EXAMPLES = [
    Example(f"{verb} {word}", "play", (Span(5, 9, "name"),) if word.istitle() else ())
    for verb in ("play", "Play", "take")
    for word in ("Jazz", "jazz", "Fold", "fold", "Soul", "soul")
]
TEXTS = (
    *SENTENCES,
    "Play THE iPod by d'Angelo, Élan's É-type (The End) McDonald",
    "CARÁCTER LATINO, A\u030angstro\u0308m I\u0307stanbul \u01c5 ﬁ Straße",
    "Ἀθήνα Москва 東京Tokyo Tōkyō a\u0000B \u200bZero 3D X-ray _Under 한국어Korea",
    f"X{'x' * 99} {'y' * 100}",
    "A",
)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def values(tmp_path: Path, tiny_encoder: Path) -> dict[str, dict[str, Any]]:
    for split in ("train", "dev"):
        write_jsonl(tmp_path / f"{split}.jsonl", EXAMPLES)
    return {
        "model": {"encoder": str(tiny_encoder), "max_length": 32, "stride": 8, "dropout": 0.0},
        "data": {split: str(tmp_path) for split in ("train", "dev")},
        "optim": {"epochs": 40, "learning_rate": 2e-3, "head_learning_rate": 5e-3},
        "run": {"output": str(tmp_path / "run")},
    }


def run(values: dict[str, dict[str, Any]], **model: Any) -> dict[str, Any]:
    return fit(parse(FitSettings, {**values, "model": {**values["model"], **model}}, "the test"))


@pytest.mark.parametrize("kind", [PreTrainedTokenizerFast, BertTokenizerFast])
def test_texts_are_cut_as_before_and_capitals_have_rows_of_their_own(
    tiny_encoder: Path, schema: LabelSchema, tmp_path: Path, kind: type[PreTrainedTokenizerFast]
) -> None:
    """Also as AutoTokenizer reads it, whose classes may put normalisers of their own in place."""
    model = random_model(tiny_encoder, schema)
    tokenizer = kind(tokenizer_object=wordpiece(), pad_token="[PAD]", unk_token="[UNK]")
    before = checkpoint.text_encoder(tokenizer, model)
    table = model.encoder.get_input_embeddings().weight.detach().clone()
    keep_case(model, tokenizer)
    tokenizer.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    pieces = read.convert_ids_to_tokens
    for plain, cased in zip(
        before(TEXTS), checkpoint.text_encoder(read, model)(TEXTS), strict=True
    ):
        assert (plain.words, plain.word_pieces) == (cased.words, cased.word_pieces)
        assert len(plain.ids) == len(cased.ids)
        firsts = dict(zip(cased.word_pieces, cased.words, strict=True))
        for at, (left, right) in enumerate(zip(plain.ids, cased.ids, strict=True)):
            start, _ = firsts.get(at, (None, None))
            letter = "" if start is None else cased.text[start]
            if left == right:
                begins = pieces(left) != "[UNK]" and not pieces(left).startswith("##")
                assert not (begins and "A" <= letter <= "Z"), cased.text[start:]
            else:
                assert letter.isupper()
                assert pieces(right) == MARK + pieces(left)
    new = model.encoder.get_input_embeddings().weight.detach()
    vocabulary = tokenizer.get_vocab()
    assert len(new) == max(vocabulary.values()) + 1 == model.config.encoder["vocab_size"]
    assert torch.equal(new[: len(table)], table)
    moved = torch.stack([new[row] - table[vocabulary[piece.removeprefix(MARK)]]
        for piece, row in vocabulary.items() if piece.startswith(MARK)])  # fmt: skip
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-6, rtol=1e-5)
    assert float(moved[0].norm()) == pytest.approx(0.3 * float(table.norm(dim=1).mean()), rel=0.05)


def test_names_that_only_capitals_tell_are_found_to_the_served_graph(
    values, tmp_path: Path
) -> None:
    assert run(values)["dev"]["ner"]["f1"] < 0.8
    values["run"]["output"] = str(tmp_path / "cased")
    found = run(values, keep_case=True)
    assert found["dev"]["ner"]["f1"] == found["dev"]["joint"]["exact_match"] == 1
    assert "- letter case: kept\n" in (tmp_path / "cased" / "README.md").read_text()
    artifact = export_artifact(
        tmp_path / "cased", tmp_path / "artifact", variants=["fp32-fused", "fp32-packed"]
    )
    texts = ["play Jazz", "play jazz"]
    for pipeline in (
        checkpoint.load_pipeline(tmp_path / "cased"),
        Pipeline.from_artifact(artifact),
    ):
        answers = pipeline.predict(texts)
        assert [[one.text for one in answer.entities] for answer in answers] == [["Jazz"], []]


def test_a_tokenizer_with_more_ids_than_embeddings_is_refused(
    tiny_encoder: Path, schema: LabelSchema
) -> None:
    tokenizer = checkpoint.load_tokenizer(str(tiny_encoder))
    tokenizer.add_tokens(["<user>"])
    with pytest.raises(ConfigError, match=r"gives ids up to \d+, its encoder has embeddings"):
        keep_case(random_model(tiny_encoder, schema), tokenizer)


def test_a_start_without_letter_case_is_refused(values, tmp_path: Path) -> None:
    values["optim"] = {"epochs": 1}
    run(values)
    values["run"]["output"] = str(tmp_path / "cased")
    with pytest.raises(ArtifactError, match=r"(?s)another encoder.*and model\.keep_case as it was"):
        run(values, keep_case=True, start_from=str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("part", "change"),
    [("normalizer", None), ("normalizer", {"lowercase": False}),
     ("normalizer", {"strip_accents": False}), ("model", {"type": "WordLevel"})],
)  # fmt: skip
def test_a_tokenizer_that_is_no_uncased_wordpiece_is_refused(
    values, tiny_encoder: Path, tmp_path: Path, part: str, change: dict[str, Any] | None
) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw[part] = None if change is None else {**raw[part], **change}
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"model\.keep_case: the tokenizer of .* is no uncased"):
        run(values, encoder=str(folder), keep_case=True)
