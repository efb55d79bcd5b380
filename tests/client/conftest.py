"""A fake Triton whose model finds digits: long texts are `long`, every digit run is an entity."""

import re
from collections.abc import Sequence

import pytest

from multitask_client.testing import FakeServer
from multitask_core.errors import InputError
from multitask_core.prediction import Entity, Prediction

CLASSES = ("short", "long")


def find_digits(texts: Sequence[str]) -> list[Prediction]:
    for index, text in enumerate(texts):
        if not text.strip():
            place = f"text {index}: " if len(texts) > 1 else ""
            raise InputError(f"{place}the text is empty")
    return [_find_digits(text) for text in texts]


def _find_digits(text: str) -> Prediction:
    scores = dict(zip(CLASSES, (0.25, 0.75) if len(text) > 10 else (0.75, 0.25), strict=True))
    entities = tuple(
        Entity("number", match[0], match.start(), match.end(), 0.5)
        for match in re.finditer(r"\d+", text)
    )
    return Prediction(max(scores, key=scores.__getitem__), scores, entities)


@pytest.fixture
def server():
    with FakeServer(find_digits, classes=CLASSES) as running:
        yield running


@pytest.fixture
def expected():
    """What the fake's model answers, in process."""
    return find_digits
