"""The two-headed model as a Hugging Face citizen."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.labels import LabelSchema
from multitask_train import MultiTaskConfig, MultiTaskModel, checkpoint
from multitask_train.data.batches import collate
from multitask_train.data.features import IGNORED, Feature
from tiny import SENTENCES, random_model

JOINT = Feature([2, 5, 6, 3], 1, [IGNORED, 1, 0, IGNORED])
CLASSIFIED = Feature([2, 7, 3], 0, [IGNORED] * 3)
TAGGED = Feature([2, 8, 9, 3], IGNORED, [IGNORED, 3, 4, IGNORED])


def test_saved_and_loaded_answers_are_equal(tiny_checkpoint: Path) -> None:
    assert isinstance(AutoConfig.from_pretrained(tiny_checkpoint), MultiTaskConfig)
    auto = AutoModel.from_pretrained(tiny_checkpoint).eval()
    model, encoder = checkpoint.load(tiny_checkpoint)
    batch = collate([JOINT, TAGGED], 0)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        assert torch.equal(auto(**inputs).class_logits, model(**inputs).class_logits)
    assert encoder.windowing == model.config.windowing


def test_shapes_and_losses(tiny_encoder: Path, schema: LabelSchema) -> None:
    model = random_model(tiny_encoder, schema)
    output = model(**collate([JOINT, CLASSIFIED], 0))
    assert output.class_logits.shape == (2, 3)
    assert output.token_logits.shape == (2, 4, 7)
    assert output.loss == output.class_loss + output.token_loss
    assert model(**collate([CLASSIFIED], 0)).token_loss is None
    assert model(**collate([TAGGED], 0)).class_loss is None
    unlabelled = collate([JOINT], 0)
    assert model(unlabelled["input_ids"], unlabelled["attention_mask"]).loss is None


def test_padding_changes_nothing(tiny_encoder: Path, schema: LabelSchema) -> None:
    model = random_model(tiny_encoder, schema)
    alone, padded = collate([CLASSIFIED], 0), collate([CLASSIFIED, JOINT], 0)
    with torch.inference_mode():
        left = model(alone["input_ids"], alone["attention_mask"])
        right = model(padded["input_ids"], padded["attention_mask"])
    torch.testing.assert_close(left.class_logits[0], right.class_logits[0])
    torch.testing.assert_close(left.token_logits[0], right.token_logits[0, :3])


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (
            DistilBertConfig(vocab_size=99, dim=32, n_layers=1, n_heads=2, hidden_dim=64),
            DistilBertModel,
        ),
        (
            RobertaConfig(
                vocab_size=99,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=64,
                pad_token_id=1,
            ),
            RobertaModel,
        ),
        (
            MPNetConfig(
                vocab_size=99,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=64,
            ),
            MPNetModel,
        ),
        (
            ModernBertConfig(
                vocab_size=99,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=64,
                pad_token_id=0,
                reference_compile=False,
            ),
            ModernBertModel,
        ),
    ],
)
def test_any_encoder(config, kind, schema: LabelSchema, tmp_path: Path) -> None:
    kind(config).save_pretrained(tmp_path / "encoder")
    model = MultiTaskModel.from_encoder(tmp_path / "encoder", schema).eval()
    model.save_pretrained(tmp_path / "model")
    again = MultiTaskModel.from_pretrained(tmp_path / "model").eval()
    batch = collate([JOINT, CLASSIFIED], 0)
    with torch.inference_mode():
        assert torch.equal(model(**batch).token_logits, again(**batch).token_logits)


@pytest.mark.parametrize("published", ["float16", "bfloat16"])
def test_an_encoder_published_in_half_precision_is_fp32_here(
    published: str, tiny_encoder: Path, schema: LabelSchema, tmp_path: Path
) -> None:
    half = AutoModel.from_pretrained(tiny_encoder).to(getattr(torch, published))
    half.save_pretrained(tmp_path / "encoder")
    assert f'"{published}"' in (tmp_path / "encoder" / "config.json").read_text()
    model = MultiTaskModel.from_encoder(tmp_path / "encoder", schema).eval()
    with torch.no_grad():
        model.encoder.get_input_embeddings().weight.add_(1e-6)  # nothing that half could hold
    model.save_pretrained(tmp_path / "model")
    again = MultiTaskModel.from_pretrained(tmp_path / "model").eval()
    assert {one.dtype for one in again.parameters()} == {torch.float32}
    batch = collate([JOINT, CLASSIFIED], 0)
    with torch.inference_mode():
        assert torch.equal(model(**batch).token_logits, again(**batch).token_logits)


@pytest.mark.parametrize("damage", ["truncate", "manifest", "config"])
def test_a_damaged_checkpoint_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, damage: str
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    if damage == "truncate":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="copy"):
        checkpoint.load(folder)


def test_an_encoder_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'minilm', which needs no hub"):
        checkpoint.load_tokenizer(str(tmp_path / "nothing"))


def test_the_checkpoint_answers_like_its_parts(tiny_checkpoint: Path) -> None:
    pipeline = checkpoint.load_pipeline(tiny_checkpoint)
    answers = pipeline.predict(SENTENCES)
    assert {answer.label for answer in answers} <= set(pipeline.schema.classes)
    assert any(answer.entities for answer in answers)


def test_a_checkpoint_gives_its_encoder_and_the_heads_of_equal_labels(
    tiny_encoder: Path, tiny_checkpoint: Path, schema: LabelSchema
) -> None:
    other = LabelSchema(schema.classes, (*schema.entity_types, "zone"))
    model = random_model(tiny_encoder, other, seed=5)
    fresh = model.token_head.output.weight.clone()
    assert checkpoint.copy_weights([tiny_checkpoint], model) == ["encoder", "sentence_head"]
    source, _ = checkpoint.load(tiny_checkpoint)
    for name in ("encoder", "sentence_head"):
        theirs = getattr(source, name).state_dict()
        for key, value in getattr(model, name).state_dict().items():
            assert torch.equal(value, theirs[key])
    assert torch.equal(model.token_head.output.weight, fresh)


def test_a_checkpoint_of_another_encoder_is_refused(
    tiny_checkpoint: Path, schema: LabelSchema, tmp_path: Path
) -> None:
    config = RobertaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    RobertaModel(config).save_pretrained(tmp_path)
    model = MultiTaskModel.from_encoder(tmp_path, schema)
    with pytest.raises(ArtifactError, match="holds another encoder than model.encoder"):
        checkpoint.copy_weights([tiny_checkpoint], model)
