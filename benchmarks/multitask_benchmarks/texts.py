"""The texts that are sent or computed."""

from __future__ import annotations

import random


def read_texts(source: str, limit: int) -> list[str]:
    """Texts of a corpus in a fixed random order: corpora are often sorted by label."""
    # The reader's package loads torch, which --help and a faulty option do without.
    from multitask_train.data import read_examples

    texts = [example.text for example in read_examples(source)]
    random.Random(0).shuffle(texts)  # noqa: S311  no secret
    return texts[:limit]
