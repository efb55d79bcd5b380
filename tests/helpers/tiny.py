"""What the tests share: a tiny tokenizer, a random model, sentences of all lengths."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from multitask_core.labels import LabelSchema
from multitask_core.text import Windowing
from multitask_train import MultiTaskModel

SENTENCES = (
    "play some jazz in Paris",
    "wake me at seven",
    "Zoë's café – closed!",
    "a",
    "is it raining in New York tomorrow, or the day after that?",
    "no",
    "turn the kitchen lights off please",
)


def wordpiece() -> Tokenizer:
    """Every ASCII character is a piece, so that most words have several; others are [UNK]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = ["play", "the", "in", "is", "at", "jazz", "paris", "##ing", "##s"]
    vocabulary = [*special, *characters, *(f"##{one}" for one in characters), *words]
    names = {piece: index for index, piece in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(names, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def random_model(
    encoder: Path, schema: LabelSchema, seed: int = 1, dropout: float = 0.1
) -> MultiTaskModel:
    """Random heads, large enough that answers vary and ties do not happen."""
    torch.manual_seed(seed)
    model = MultiTaskModel.from_encoder(
        encoder, schema, dropout=dropout, windowing=Windowing(32, 8)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()
