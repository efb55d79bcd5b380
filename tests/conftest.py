"""A tiny random two-headed BERT, its checkpoint, artifact and repository, made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from multitask_core.labels import LabelSchema
from multitask_core.serving import Serving
from multitask_export.export import export_artifact
from multitask_export.repository import write_repository
from multitask_train import checkpoint
from multitask_train.data import Example, Span
from tiny import SENTENCES, random_model, wordpiece


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Threads decide the last bit of a sum: no test changes them for the next."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def schema() -> LabelSchema:
    return LabelSchema(("alarm", "music", "weather"), ("city", "genre", "time"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers, width 32, in Hugging Face layout."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = wordpiece()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tiny_encoder: Path, schema: LabelSchema, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    samples = [Example(text, "music", (Span(0, 1, "genre"),)) for text in SENTENCES]
    checkpoint.save(
        folder,
        random_model(tiny_encoder, schema),
        checkpoint.load_tokenizer(str(tiny_encoder)),
        card="# tiny\n",
        metrics={},
        config={},
        samples=samples,
        data="none",
    )
    return folder


@pytest.fixture(scope="session")
def tiny_artifact(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("artifacts") / "tiny"
    names = ["fp32-fused", "fp32-packed", "fp16", "fp16-fused"]
    # FP32 answers can be compared exactly; `auto` would take BF16 where the CPU has it.
    return export_artifact(
        tiny_checkpoint, output, variants=names, serving=Serving(engine="onnxruntime")
    )


@pytest.fixture(scope="session")
def tiny_repository(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repositories") / "tiny"
    write_repository(tiny_artifact, repository)
    return repository
