"""A fake Triton and an in-process subject that answer alike, and a small labelled corpus."""

import json
import re

import pytest

from multitask_benchmarks.subjects import InProcess
from multitask_client.testing import FakeServer
from multitask_core.prediction import Entity, Prediction

CLASSES = ("even", "odd")


def answer(texts):
    return [_answer(text) for text in texts]


def _answer(text):
    label = CLASSES[len(text) % 2]
    scores = {name: float(name == label) for name in CLASSES}
    entities = tuple(
        Entity("number", match[0], match.start(), match.end(), 1.0)
        for match in re.finditer(r"\d+", text)
    )
    return Prediction(label, scores, entities)


class Model:
    """Stands for a Pipeline."""

    def __init__(self, answers=answer):
        self.calls = []
        self._answers = answers

    def predict(self, texts):
        self.calls.append(list(texts))
        return self._answers(texts)


@pytest.fixture
def server():
    with FakeServer(answer, classes=CLASSES, max_batch_size=64) as running:
        yield running


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def checkpoint(model):
    return InProcess("checkpoint", model, {"kind": "checkpoint"})


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "test.jsonl"
    lines = []
    for number in range(40):
        text = f"{'x' * number} room {number}"
        (prediction,) = answer([text])
        entities = [
            {"type": one.type, "start": one.start, "end": one.end} for one in prediction.entities
        ]
        lines.append(json.dumps({"text": text, "label": prediction.label, "entities": entities}))
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture
def render():
    """A rich table as plain text."""
    from rich.console import Console

    def render(table):
        console = Console(width=200, no_color=True)
        with console.capture() as capture:
            console.print(table)
        return capture.get()

    return render
