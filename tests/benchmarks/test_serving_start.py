"""Cold starts, and perf_analyzer as a second load generator."""

import argparse
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest

from multitask_benchmarks.serving import cross_check, perf_analyzer, start
from multitask_benchmarks.serving.figures import UNITS, Figures
from multitask_benchmarks.serving.served import Served
from multitask_benchmarks.serving.web import HttpForm
from multitask_core.errors import ParityError, ServeError
from multitask_core.prediction import Prediction

TEXTS = [f"{'x' * number} room {number}" for number in range(20)]


@pytest.fixture
def served(server):
    return Served("fake", server.url, "", os.getpid(), {"kind": "triton"}, ready_s=0.5)


def starter(served, folder, **more):
    @contextmanager
    def begin():
        log.append("start")
        yield served
        log.append("stop")

    log = []
    return start.Starter(begin, folder, Figures(served.name, {}), **more), log


# --- start


def test_a_start_is_timed_to_the_first_answer_and_ended(server, served, tmp_path, render):
    one, log = starter(served, tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"x" * 10_000)
    one.run(TEXTS, 30, evict=True)
    assert log == ["start", "stop"]
    assert [texts[0] for texts in server.requests] == [TEXTS[n % 20] for n in range(31)]
    found = {name: value for name, (value,) in one.figures.values.items()}
    assert found["first_answer_s"] > found["ready_s"] == 0.5
    assert found["first_to_warm"] == pytest.approx(found["first_ms"] / found["warm_ms"])
    assert found["ready_pss_mib"] > 1
    assert set(found) <= set(UNITS)
    assert "first answer s" in render(start.table([one.figures]))
    assert (tmp_path / "weights.bin").read_bytes() == b"x" * 10_000


def test_a_peer_that_does_not_start_is_told_and_ours_is_an_error(served, tmp_path):
    @contextmanager
    def broken():
        raise ServeError("no java on PATH")
        yield

    good, _ = starter(served, tmp_path)
    peer = start.Starter(broken, tmp_path, Figures("torchserve fp32", {}), optional=True)
    mute, log = starter(
        replace(served, url="127.0.0.1:1", form=HttpForm()), tmp_path, optional=True
    )
    mute.figures.subject = "mute"
    options = argparse.Namespace(rounds=2, warm_calls=5, evict=False, allow_different=False)
    not_run = start.measure([good, peer, mute], TEXTS, options)
    assert not_run["torchserve fp32"] == "no java on PATH"
    assert "1 of 1 calls failed" in not_run["mute"]
    assert len(good.figures.values["ready_s"]) == 2
    assert log == ["start"]
    ours = start.Starter(broken, tmp_path, Figures("Triton", {}))
    with pytest.raises(ServeError, match="no java"):
        start.measure([ours], TEXTS, options)


def test_answers_are_compared_once_and_a_peers_are_counted(server, served, tmp_path):
    reference = server.answer(TEXTS)
    other = [Prediction("odd", {"odd": 1.0}, one.entities) for one in reference]
    one, _ = starter(served, tmp_path)
    for _ in range(2):
        one.run(TEXTS, 5, evict=False, reference=reference)
    assert one.agreement["fake"]["all_equal"] == 20
    assert len(server.requests) == 2 * 6 + 20
    ours, _ = starter(served, tmp_path)
    with pytest.raises(ParityError, match="differ on 10 of 20"):
        ours.run(TEXTS, 5, evict=False, reference=other)
    ours.run(TEXTS, 5, evict=False, reference=other, allow_different=True)
    assert ours.agreement["fake"]["labels_equal"] == 10


# --- perf_analyzer

# As version 2.51 wrote it.
REPORT = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
    "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,p50 latency,"
    "p90 latency,p95 latency,p99 latency\n"
    "4,15.9141,8,10746,43729,49,185148,4882,5,212047,404007,424265,502319\n"
)
PROGRAM = f"""#!{sys.executable}
import sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "nobody" in words["-u"]:
    print("error: failed to connect", file=sys.stderr)
    sys.exit(99)
assert words["--concurrency-range"] == "4:4" and words["-i"] == "grpc", words
open(words["-f"], "w").write({REPORT!r})
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Something on PATH that is called and answers as perf_analyzer does."""
    path = tmp_path / "bin" / "perf_analyzer"
    path.parent.mkdir()
    path.write_text(PROGRAM, "utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return str(path)


def test_its_report_becomes_figures():
    found = perf_analyzer.read_report(REPORT)
    assert found["answers_per_s"] == 15.9141
    assert found["queue_ms"] == pytest.approx(43.729)
    assert found["compute_ms"] == pytest.approx(190.079)
    assert found["outside_ms"] == pytest.approx(10.759)
    assert found["mean_ms"] == pytest.approx(244.567)
    assert (found["p50_ms"], found["p99_ms"]) == (212.047, 502.319)
    assert set(found) <= set(UNITS)


@pytest.mark.parametrize("page", ["", "Concurrency\n", REPORT.replace("p99", "p98"), REPORT * 2])
def test_another_report_is_refused(page):
    with pytest.raises(ServeError, match="cannot be read"):
        perf_analyzer.read_report(page)


def test_its_input_is_one_text_a_request():
    texts = ['say "now"', "Zoë in 東京"]
    steps = json.loads(perf_analyzer.input_data(texts))["data"]
    assert [one["TEXT"] for one in steps] == [{"content": [text], "shape": [1]} for text in texts]


def test_it_is_found_run_and_its_failure_told(program):
    assert perf_analyzer.find() == program
    found = perf_analyzer.run(program, "localhost:1", TEXTS, 4, 0.3)
    assert found == perf_analyzer.read_report(REPORT)
    with pytest.raises(ServeError, match="status 99 and said: error: failed to connect"):
        perf_analyzer.run(program, "nobody:1", TEXTS, 4, 0.3)
    with pytest.raises(ServeError, match="did not end well"):
        perf_analyzer.run(program + "-none", "localhost:1", TEXTS, 4, 0.3)


def test_both_generators_in_turns(served, program, render):
    options = argparse.Namespace(sizes=[4], rounds=3, seconds=0.1)
    found = cross_check.measure(served, program, TEXTS, options)
    assert [one.subject for one in found] == ["closed loop", "perf_analyzer"]
    ours, theirs = (one.values for one in found)
    assert len(ours["p99_ms"]) == 3
    assert theirs["answers_per_s"] == [15.9141] * 3
    assert "4 callers" in render(cross_check.comparison(found))
    (line,) = cross_check.brief(found)
    expected = sorted(15.9141 / value for value in ours["answers_per_s"])[1]
    assert line["answers_per_s"] == pytest.approx(expected, abs=1e-3)
