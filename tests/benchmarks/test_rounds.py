import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from multitask_benchmarks.agreement import compare, require
from multitask_benchmarks.load import Measurement
from multitask_benchmarks.report import figures, interval, results_table
from multitask_benchmarks.rounds import measure_rounds, summarise
from multitask_benchmarks.stats import estimate
from multitask_benchmarks.subjects import ServedModel
from multitask_client.answers import Statistics
from multitask_core.errors import ParityError


class Scripted:
    """A subject whose calls take as long as it says; it notes the order of measurements."""

    calls = 100

    def __init__(self, name, latency_ms, log, server=None):
        self.name, self.origin = name, {}
        self._latency_ms, self._log, self._server = latency_ms, log, server

    def measure(self, texts, size, seconds):
        self._log.append((self.name, size))
        latency_ms = self._latency_ms * size
        return Measurement([latency_ms] * self.calls, 10 * size, latency_ms / 100, self._server)


@pytest.fixture
def measured():
    log = []
    statistics = Statistics(inferences=100, executions=20, queue_ms=50.0, compute_ms=200.0)
    subjects = [Scripted("base", 8.0, log), Scripted("fast", 2.0, log, statistics)]
    steps = []
    cells = measure_rounds(
        subjects, ["a"], (1, 4), rounds=3, seconds=1, advance=lambda: steps.append(1)
    )
    return SimpleNamespace(log=log, steps=steps, cells=cells, results=summarise(cells, "base"))


def test_rounds_are_interleaved_and_alternate(measured):
    forward = [("base", 1), ("fast", 1), ("base", 4), ("fast", 4)]
    warm_up = forward
    assert measured.log == [*warm_up, *forward, *forward[::-1], *forward]
    assert len(measured.steps) == 12


def test_results(measured):
    by_cell = {(one.cell.subject, one.cell.size): one for one in measured.results}
    assert by_cell["base", 1].speedup is None
    assert by_cell["fast", 4].speedup.median == pytest.approx(4)
    assert by_cell["fast", 4].p50_ms.median == 8
    assert not by_cell["fast", 4].noisy


def test_what_the_result_file_gets_holds_the_raw_rounds(measured):
    base, fast = (cell.measured("callers", "rows_per_s") for cell in measured.cells[:2])
    assert (fast.subject, fast.point) == ("fast", {"callers": 1})
    assert base.metrics["rows_per_s"].rounds == (125.0,) * 3
    assert "queue_ms" not in base.metrics
    found = {name: fast.metrics[name].rounds for name in ("mean_batch", "queue_ms", "compute_ms")}
    assert found == {
        "mean_batch": (5.0,) * 3,
        "queue_ms": (0.5,) * 3,
        "compute_ms": (2.0,) * 3,
    }


@pytest.mark.parametrize(
    ("calls", "left_out"), [(100, []), (99, ["p99_ms"]), (19, ["p95_ms", "p99_ms"])]
)
def test_percentiles_of_too_few_calls_are_left_out(monkeypatch, render, calls, left_out):
    monkeypatch.setattr(Scripted, "calls", calls)
    cells = measure_rounds([Scripted("base", 8.0, [])], ["a"], (1,), rounds=3, seconds=1)
    metrics = cells[0].measured().metrics
    assert metrics["calls"].rounds == (calls,) * 3
    assert [name for name in ("p50_ms", "p95_ms", "p99_ms") if name not in metrics] == left_out
    assert render(results_table(summarise(cells, "base"), "base")).count(" –") == len(left_out)


def test_a_subject_without_baseline_has_no_ratio(measured):
    assert all(one.speedup is None for one in summarise(measured.cells, "somebody"))


def test_the_table_says_it_all(measured, render):
    text = render(results_table(measured.results, "base"))
    for word in ("size", "speedup", "fast", "4.00 [4.00, 4.00]", "5.00", "against base", "15%"):
        assert word in text


def test_the_table_marks_noise(measured, render):
    noisy = replace(measured.results[0], p50_ms=estimate([1.0, 2.0]))
    assert "base ~" in render(results_table([noisy], "base"))


def test_figures():
    assert [figures(one) for one in (1.954, 19.54, 1954.2)] == ["1.95", "19.5", "1,954"]
    assert interval(estimate([2.0])) == "2.00 \\[2.00, 2.00]"


def test_served_model(server):
    subject = ServedModel(server.url)
    texts = [f"text {number}" for number in range(40)]
    assert subject.predict(texts) == server.answer(texts)
    assert subject.measure(texts, 4, 0.1).texts > 0
    assert subject.origin["triton"] == "0.0.0-fake"
    assert server.url not in json.dumps(subject.origin)


def test_rounds_go_on_with_the_texts_where_the_last_one_ended(server, checkpoint, model):
    texts = [f"text {number}" for number in range(7)]
    for _ in range(2):
        checkpoint.measure(texts, 2, 0.01)
    sent = [text for call in model.calls for text in call]
    assert sent == [texts[number % 7] for number in range(len(sent))]
    subject = ServedModel(server.url)
    first = subject.measure(texts, 1, 0.02).texts
    del server.requests[:]
    subject.measure(texts, 1, 0.02)
    # The first call of each comes before the clock starts.
    assert server.requests[1] == [texts[first % 7]]


def test_in_process_counts_texts_and_times_calls(checkpoint, model):
    measured = checkpoint.measure(["a", "b", "c"], 8, 0.05)
    assert measured.texts == 8 * len(model.calls)
    assert len(measured.latencies_ms) == len(model.calls)
    assert all(len(call) == 8 for call in model.calls)
    assert measured.server is None


def test_agreement(model):
    texts = ["one 1", "two", "three 3"]
    answers = model.predict(texts)
    assert compare(texts, answers, answers).complete
    changed = [replace(answers[0], entities=()), replace(answers[1], label="even"), answers[2]]
    found = compare(texts, changed, answers)
    assert found.to_dict() == {
        "texts": 3,
        "labels_equal": 2,
        "entities_equal": 2,
        "all_equal": 1,
    }
    require(found, "int8", "base", allow_different=True)
    with pytest.raises(ParityError, match="int8 and base differ on 2 of 3") as caught:
        require(found, "int8", "base", allow_different=False)
    assert "number='1'" in str(caught.value)
    assert "--allow-different" in str(caught.value)
