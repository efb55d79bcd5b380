"""What the pictures show, and that odd data do not stop them."""

import struct
from pathlib import Path

import pytest

from multitask_core.prediction import Entity, Prediction
from multitask_train.curves import curves
from multitask_train.data import Example, Span
from multitask_train.figures import confusion, entity_f1, reliability, write_figures
from multitask_train.metrics import only, score

ALL = ["confusion.png", "curves.png", "entity_f1.png", "reliability.png"]


def history(updates: int = 40, tasks: tuple[str, ...] = ("classification", "ner")) -> dict:
    dev = {"classification": None, "ner": None, "joint": None, "examples": 2}
    values = {"accuracy": 0.9, "macro_f1": 0.8, "f1": 0.7, "precision": 0.6, "recall": 0.8}
    dev |= dict.fromkeys(tasks, values)
    if len(tasks) == 2:
        dev["joint"] = {"exact_match": 0.5}
    return {
        "updates": [
            {
                "update": number,
                "epoch": 1,
                "losses": dict.fromkeys(tasks, 2.0 / number),
                "weights": dict.fromkeys(tasks, 1.0),
                "learning_rate": 1e-4,
                "gradient_norm": None if number == 1 else 1.0,
                "tokens": 10,
            }
            for number in range(1, updates + 1)
        ],
        "epochs": [{"epoch": 1, "update": updates, "dev": dev, "seconds": 1.0}],
    }


def corpus(classes: int, types: int) -> tuple[list[Example], list[Prediction]]:
    """Each class once right and once taken for the next, each type once right and once missed."""
    examples, predictions = [], []
    for index in range(2 * max(classes, types)):
        label, kind = f"class {index % classes}", f"type {index % types}"
        examples.append(Example("some text", label, (Span(0, 4, kind),)))
        right = index < max(classes, types)
        answer = label if right else f"class {(index + 1) % classes}"
        found = (Entity(kind, "some", 0, 4, 0.8),) if right else ()
        predictions.append(Prediction(answer, {answer: 0.7}, found))
    return examples, predictions


def size(path: Path) -> tuple[int, int]:
    """Width and height from the header of a PNG."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def written(folder: Path, examples, predictions, tasks: str = "both", past=None) -> list[str]:
    metrics = only(score(examples, predictions), tasks)
    paths = write_figures(folder, past or history(), metrics, examples, predictions)
    for path in paths:
        width, height = size(path)
        assert 300 <= width <= 5000
        assert 200 <= height <= 5000
    assert sorted(paths) == sorted(folder.iterdir())
    return sorted(path.name for path in paths)


@pytest.mark.parametrize(("classes", "types"), [(1, 1), (7, 39), (77, 6), (250, 120)])
def test_every_size_of_label_set(tmp_path: Path, classes: int, types: int) -> None:
    empty = {"updates": [], "epochs": []}
    assert written(tmp_path, *corpus(classes, types), past=empty) == [ALL[0], *ALL[2:]]


def test_one_kind_of_annotation_alone(tmp_path: Path) -> None:
    examples, predictions = corpus(3, 2)
    labelled = [Example(one.text, one.label) for one in examples]
    tagged = [Example(one.text, None, one.entities) for one in examples]
    assert written(tmp_path / "a", labelled, predictions) == [ALL[0], ALL[1], ALL[3]]
    assert written(tmp_path / "b", tagged, predictions) == ALL[1:]


def test_a_head_that_was_not_trained_is_not_drawn(tmp_path: Path) -> None:
    past = history(tasks=("ner",))
    assert written(tmp_path, *corpus(3, 2), tasks="ner", past=past) == ALL[1:]


def test_nothing_to_draw(tmp_path: Path) -> None:
    examples, predictions = [Example("a b", None, ())], [Prediction("x", {"x": 1.0}, ())]
    assert written(tmp_path, examples, predictions, past={"updates": [], "epochs": []}) == []


def test_names_that_are_formulas_long_or_in_other_scripts(tmp_path: Path) -> None:
    names = ("$a$ costs", "天気", "x" * 200, "a_b^c")
    examples = [Example("ab", name, (Span(0, 2, name),)) for name in names]
    predictions = [
        Prediction(name, {name: 0.9}, (Entity(name, "ab", 0, 2, 0.9),)) for name in reversed(names)
    ]
    assert written(tmp_path, examples, predictions) == ALL


def test_every_task_has_its_own_panels() -> None:
    figure = curves(history())
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == [
        "label loss",
        "entity loss",
        "label metrics on dev",
        "entity metrics on dev",
        "whole sentence metrics on dev",
        "weights of the losses",
        "learning rate",
        "gradient norm before clipping",
    ]
    assert all(axes.get_xlabel() == "update" and axes.get_ylabel() for axes in figure.axes)
    raw, smooth = figure.axes[0].get_lines()
    assert list(raw.get_ydata())[:2] == [2.0, 1.0]
    assert len(smooth.get_xdata()) == 40


def test_smoothing_is_a_mean() -> None:
    past = history(100)
    for one in past["updates"]:
        one["losses"] = {"ner": 1.0 + one["update"] % 2}
    figure = curves(past)
    assert figure is not None
    _, smooth = figure.axes[0].get_lines()
    assert smooth.get_label() == "mean of 2"
    assert list(smooth.get_ydata())[1:] == [1.5] * 99


def test_losses_that_are_not_finite_are_counted_not_drawn() -> None:
    past = history(10)
    past["updates"][4]["losses"]["ner"] = float("nan")
    past["updates"][5]["losses"]["ner"] = float("inf")
    figure = curves(past)
    assert figure is not None
    assert figure.axes[1].get_title() == "entity loss (2 not finite)"
    assert len(figure.axes[1].get_lines()[0].get_xdata()) == 8
    for one in past["updates"]:
        one["losses"]["ner"] = float("nan")
    figure = curves(past)
    assert figure is not None
    assert figure.axes[1].get_title() == "entity loss (10 not finite)"


def test_the_matrix_has_counts() -> None:
    figure = confusion([("a", "a"), ("a", "a"), ("a", "b"), ("b", "b")])
    assert figure is not None
    axes = figure.axes[0]
    assert axes.get_title() == "Labels: 3 of 4 right"
    assert [text.get_text() for text in axes.texts] == ["2", "1", "1"]
    shares = axes.images[0].get_array()
    assert shares.tolist() == [pytest.approx([2 / 3, 1 / 3]), [0, 1]]


def test_many_classes_list_the_most_confused() -> None:
    labels = [(f"c{index:02}", f"c{index:02}") for index in range(30)]
    labels += [("c03", "c07")] * 3 + [("c05", "c01")]
    figure = confusion(labels)
    assert figure is not None
    listed = figure.axes[1].texts[0].get_text().splitlines()
    assert [line.strip() for line in listed] == ["3 of 4: c03 → c07", "1 of 2: c05 → c01"]
    assert not figure.axes[0].texts


def test_bars_are_sorted_and_name_their_support() -> None:
    types = {
        "city": {"precision": 1.0, "recall": 0.5, "f1": 0.667, "support": 1200},
        "genre": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3},
    }
    figure = entity_f1(types)
    assert figure is not None
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([66.7, 100])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["city", "genre"]
    assert [text.get_text() for text in axes.texts] == ["66.7  (n = 1,200)", "100.0  (n = 3)"]


def test_of_very_many_types_the_frequent_ones_are_shown() -> None:
    types = {
        f"t{index}": {"precision": 1.0, "recall": 1.0, "f1": 0.5, "support": index}
        for index in range(100)
    }
    figure = entity_f1(types)
    assert figure is not None
    assert figure.axes[0].get_title() == "Entity types, the 80 most frequent of 100"
    shown = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert shown == {f"t{index}" for index in range(20, 100)}


def test_reliability_shows_shares_and_the_error() -> None:
    scored = [(0.95, True), (0.95, False), (0.31, True), (0.31, True)]
    figure = reliability({"classification": scored, "ner": []})
    assert figure is not None
    above, below = figure.axes
    assert above.get_title() == "Labels: calibration error 57.0 points"
    heights = {index: bar.get_height() for index, bar in enumerate(above.patches)}
    assert {index: height for index, height in heights.items() if height} == {4: 100, 14: 50}
    assert below.get_title() == "4 answers"
    assert reliability({"classification": [], "ner": []}) is None
