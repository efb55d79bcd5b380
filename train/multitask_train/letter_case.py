"""Letter case for uncased encoders, which read “find The Fold” and “find the fold” alike.

Where a name begins, and whether “the” belongs to it, is then a guess. With `model.keep_case` a word
that begins with a capital has an embedding of its own for its first piece: at first that of the
piece in small letters, moved in a direction that all capitals share, so that also those of words
that training never shows are told apart. Texts are cut into the same pieces as before, so that
nothing costs more but the memory of the rows.

All of it stands in the tokenizer and the embeddings: the checkpoint, AutoTokenizer, the export and
the server need to know nothing of it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any, cast

import torch
from tokenizers import Regex, normalizers
from tokenizers.models import WordPiece
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from multitask_core.errors import ConfigError
from multitask_train.model import MultiTaskModel

# Stands before a capital: a letter (LATIN LETTER SINOLOGICAL DOT) that no normaliser takes away.
MARK = "\ua78f"
# How far capitals begin from small letters, as a share of the embeddings' mean norm.
_DISTANCE = 0.3
_BEGINS_A_WORD = r"(?<![\p{L}\p{M}\p{N}])"


def keep_case(model: MultiTaskModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give words that begin with a Latin capital, accented or not, embeddings of their own.

    Changes both in place. Raises ConfigError for a tokenizer that is no uncased WordPiece.
    """
    backend = tokenizer.backend_tokenizer
    raw = json.loads(backend.to_str())
    _check(tokenizer.name_or_path, raw)
    first = len(_table(model))
    if (last := max(backend.get_vocab().values())) >= first:
        raise ConfigError(
            f"the tokenizer of {tokenizer.name_or_path} gives ids up to {last}, its encoder has "
            f"embeddings for those below {first}; name an encoder whose tokenizer belongs to it"
        )
    vocabulary: dict[str, int] = raw["model"]["vocab"]
    old = {one: row for one, row in vocabulary.items() if one[0] in string.ascii_lowercase}
    rows = sorted(old.values())
    new = {row: first + at for at, row in enumerate(rows)}
    vocabulary |= {MARK + piece: new[row] for piece, row in old.items()}
    # The mark counts as a character of the word.
    longest = raw["model"]["max_input_chars_per_word"] + len(MARK)
    kept = {name: raw["model"][name] for name in ("unk_token", "continuing_subword_prefix")}
    backend.model = WordPiece(vocabulary, max_input_chars_per_word=longest, **kept)
    # Words begin where they will once signs are cleaned away and Chinese characters set apart.
    cleaning = {name: raw["normalizer"][name] for name in ("clean_text", "handle_chinese_chars")}
    clean = normalizers.BertNormalizer(**cleaning, strip_accents=False, lowercase=False)
    # One pattern a letter, since a replacement cannot name what it found, and an empty match fails.
    marks = [
        normalizers.Replace(Regex(_BEGINS_A_WORD + letter), MARK + letter)
        for letter in string.ascii_uppercase
    ]
    steps = [clean, normalizers.NFD(), *marks, backend.normalizer]
    backend.normalizer = normalizers.Sequence(steps)
    _add_rows(model, first, rows)


def _check(name: str, raw: Mapping[str, Any]) -> None:
    normalizer = raw["normalizer"] or {}
    if not (
        raw["model"]["type"] == "WordPiece"
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["lowercase"]
        and normalizer["strip_accents"] is not False
    ):
        raise ConfigError(
            f"model.keep_case: the tokenizer of {name} is no uncased WordPiece, such as that of "
            "bert-base-uncased; most others keep letter case by themselves: leave model.keep_case "
            "out"
        )


def _table(model: MultiTaskModel) -> Tensor:
    return cast(nn.Embedding, model.encoder.get_input_embeddings()).weight


@torch.no_grad()
def _add_rows(model: MultiTaskModel, first: int, rows: list[int]) -> None:
    """Copy embeddings to `first` on, moved in a direction that is the same in every run."""
    size = first + len(rows)
    model.encoder.resize_token_embeddings(size, mean_resizing=False)
    model.config.encoder["vocab_size"] = size
    table = _table(model)
    direction = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
    direction *= _DISTANCE * table[:first].norm(dim=1).mean() / direction.norm()
    table[first:] = table[rows] + direction
