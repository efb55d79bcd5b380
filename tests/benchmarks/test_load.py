import pytest

from multitask_benchmarks.load import run_load
from multitask_core.errors import ClientError

TEXTS = [f"text {number}" for number in range(50)]


def test_each_text_once(server):
    result = run_load(server.url, TEXTS, concurrency=8)
    assert result.texts == len(result.latencies_ms) == 50
    assert sorted(result.predictions) == list(range(50))
    assert [result.predictions[index] for index in range(50)] == list(server.answer(TEXTS))
    assert (result.server.inferences, result.server.executions) == (50, 50)
    assert all(len(texts) == 1 for texts in server.requests)


def test_for_some_seconds(server):
    result = run_load(server.url, TEXTS[:3], concurrency=2, seconds=0.3)
    assert 0.3 <= result.seconds < 1.5
    assert result.texts == len(result.latencies_ms) == result.server.inferences > 3
    assert sorted(result.predictions) == [0, 1, 2]


def test_callers_wait_for_their_answer_and_run_at_once(server):
    server.delay_s = 0.1
    result = run_load(server.url, TEXTS[:16], concurrency=8)
    assert 0.2 <= result.seconds < 1.2  # one by one it would be 1.6
    assert all(100 <= latency_ms < 1000 for latency_ms in result.latencies_ms)


def test_the_first_failure_ends_the_run(server):
    good = server.answer

    def fail_at_20(texts):
        if texts == [TEXTS[20]]:
            raise RuntimeError("boom")
        return good(texts)

    server.answer = fail_at_20
    with pytest.raises(ClientError, match="text 20 of the data"):
        run_load(server.url, TEXTS, concurrency=4)
    assert len(server.requests) < 50


def test_failures_are_not_retried(server):
    server.failures.extend([("UNAVAILABLE", "busy")] * 2)
    with pytest.raises(ClientError, match="busy"):
        run_load(server.url, TEXTS, concurrency=1)
    assert len(server.requests) == 1


def test_more_callers_than_texts(server):
    assert run_load(server.url, TEXTS[:2], concurrency=32).texts == 2
