"""What the serving benchmarks compute: schedules, slopes, recovery, counters, verdicts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from multitask_benchmarks.serving import counters, processes
from multitask_benchmarks.serving.answers import difference, distinguishing, judge
from multitask_benchmarks.serving.arrivals import Phase, duration_s, schedule, starts
from multitask_benchmarks.serving.calls import Calls, percentiles
from multitask_benchmarks.serving.endpoint import Reply
from multitask_benchmarks.serving.trends import Bin, bins, recovery_s, slope
from multitask_client.errors import ServerError, ServerUnavailable
from multitask_core.errors import ClientError
from multitask_core.prediction import Entity, Prediction

PHASES = [Phase("half", 100, 20), Phase("full", 400, 10), Phase("half", 100, 20)]


def calls_at(*rows):
    """Calls from (start_s, latency_ms, status)."""
    calls = Calls()
    for start_s, latency_ms, status in rows:
        calls.add(0, start_s, start_s, start_s + latency_ms / 1e3, status)
    return calls


def test_a_schedule_has_the_rate_of_each_phase_and_is_in_order():
    due = schedule(PHASES, seed=3)
    assert duration_s(PHASES) == 50
    assert starts(PHASES) == [0, 20, 30]
    assert (np.diff(due) >= 0).all()
    assert 0 <= due[0] <= due[-1] < 50
    counts = np.histogram(due, [0, 20, 30, 50])[0]
    assert counts == pytest.approx([2000, 4000, 2000], rel=0.1)


def test_arrivals_are_poisson_and_repeatable():
    due = schedule([Phase("one", 1000, 20)], seed=1)
    gaps = np.diff(due)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)  # as of an exponential
    np.testing.assert_array_equal(due, schedule([Phase("one", 1000, 20)], seed=1))
    assert len(due) != len(schedule([Phase("one", 1000, 20)], seed=2))


def test_generators_share_a_rate():
    parts = [schedule(PHASES, seed=seed, share=0.25) for seed in range(4)]
    assert sum(map(len, parts)) == pytest.approx(8000, rel=0.06)
    assert len({len(part) for part in parts}) > 1


def test_slope_finds_growth_and_its_doubt():
    hours = np.arange(0, 1800, 10.0)
    noise = np.random.default_rng(0).normal(0, 1.0, len(hours))
    grown = slope(hours, 500 + 60 * hours / 3600 + noise)
    assert grown.per_hour == pytest.approx(60, abs=5)
    assert grown.low < 60 < grown.high
    assert grown.grows
    flat = slope(hours, 500 + noise)
    assert flat.low < 0 < flat.high
    assert not flat.grows


def test_slope_widens_where_neighbours_are_alike():
    waves = np.sin(np.arange(400) / 10)
    times_s = np.arange(400) * 10.0
    shuffled = np.random.default_rng(1).permutation(waves)
    alike, apart = slope(times_s, waves), slope(times_s, shuffled)
    assert alike.high - alike.low > 1.5 * (apart.high - apart.low)


def test_slope_of_too_little_is_unknown():
    assert slope([0, 1, 2], [1, 2, 3]) == (None, None, None)
    assert not slope([0.0] * 10, [1.0] * 10).grows


def test_bins_go_by_the_intended_time_and_count_the_refused():
    calls = calls_at((10.0, 5, "OK"), (10.4, 900, "OK"), (10.6, 7, "UNAVAILABLE"), (11.0, 1, "OK"))
    found = bins(calls, 10.0, 1.5, 0.5)
    assert [(one.start_s, one.sent, one.answered) for one in found] == [
        (0.0, 2, 2),
        (0.5, 1, 0),
        (1.0, 1, 1),
    ]
    assert found[0].p99_ms == pytest.approx(900)
    assert found[1].p99_ms is None


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([(9, 9, 10)], 0.5),
        ([(9, 9, 99), (9, 9, 10)], 1.0),
        ([(9, 8, 10), (9, 9, 10)], 1.0),  # not recovered while calls are refused
        ([(0, 0, None), (9, 9, 10)], 1.0),
        ([(9, 9, 99)], None),
        ([], None),
    ],
)
def test_recovery(series, expected):
    found = [Bin(0.5 * i, sent, done, p99, p99) for i, (sent, done, p99) in enumerate(series)]
    assert recovery_s(found, 0.5, limit_ms=15) == expected


def test_percentiles_are_latencies_that_occurred():
    found = percentiles([1.0] * 98 + [5.0, 70.0])
    assert found == {"count": 100, "p50_ms": 1.0, "p95_ms": 1.0, "p99_ms": 5.0, "max_ms": 70.0}
    assert percentiles([])["p99_ms"] is None


def test_figures_of_a_run_with_failures_are_refused():
    calls = calls_at((0.0, 5, "OK"), (0.1, 5, "UNAVAILABLE: full"))
    calls.examples = {"UNAVAILABLE: full": "queue is full"}
    with pytest.raises(ClientError, match="1 of 2 calls failed: .*queue is full"):
        calls.stats()


def test_reasons_count_together_without_numbers_and_addresses():
    calls = Calls()
    for queue in (256, 255):
        message = f"h:8001: [request id: <{queue}>] Exceeds maximum queue size {queue} (raise it)"
        status = calls.failed(ServerUnavailable(message, status="UNAVAILABLE"))
    assert status == "UNAVAILABLE: Exceeds maximum queue size #"
    assert len(calls.examples) == 1


PAGE = """# HELP multitask_texts_total Texts answered
# TYPE multitask_texts_total counter
multitask_texts_total{model="multitask",version="1"} 10
multitask_texts_total{model="multitask",version="2"} 5.5
multitask_labels_total{label="a \\"b\\" } c",model="multitask",version="1"} 3
multitask_batches_total 4
multitask_engine_info{engine="onnxruntime",model="multitask",openvino="",version="1"} 1
multitask_engine_info{engine="openvino-bf16",model="multitask",openvino="2026.4",version="2"} 1
nv_inference_count{model="multitask"} 99
"""


def test_counters_are_summed_by_name_whatever_the_labels_hold():
    found = counters.parse(PAGE)
    assert found == {
        "multitask_texts_total": 15.5,
        "multitask_labels_total": 3,
        "multitask_batches_total": 4,
    }
    more = {**found, "multitask_windows_total": 12.0, "multitask_batches_total": 8.0}
    since = counters.added(found, more)
    assert since["multitask_texts_total"] == 0
    assert counters.mean_batch(since) == 3
    assert counters.mean_batch({}) is None


def test_a_server_says_what_its_encoder_runs_on():
    assert counters.engine(PAGE, "2") == {"engine": "openvino-bf16", "openvino": "2026.4"}
    assert counters.engine(PAGE, "3") == counters.engine("", "1") == {}


def test_unreadable_metrics_are_named():
    with pytest.raises(ClientError, match=r"http://127\.0\.0\.1:1/metrics"):
        counters.read_counters("http://127.0.0.1:1/metrics")


CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], 'mark-leaf'])"
BUSY = (
    "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint()"
)


@pytest.fixture
def family():
    """A process whose child works for 0.3 s of CPU and then waits."""
    command = [sys.executable, "-c", CHILD, f"{BUSY}\nimport sys; sys.stdout.flush(); input()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()  # the child has done its work
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_tree_counts_children(family):
    found = processes.tree(family.pid)
    assert len(found) == 2
    assert found[0].pid == family.pid
    assert processes.cpu_s(family.pid) >= 0.28
    assert all(one.memory_mib > 1 for one in found)
    assert processes.find(family.pid, "mark-leaf") == found[1].pid
    assert processes.find(family.pid, "no such argument") is None
    assert processes.tree(2**22 + 1) == []


def test_the_time_of_children_that_ended_stays_with_the_tree(family):
    before_s = processes.cpu_s(family.pid)
    leaf = processes.tree(family.pid)[1].pid
    family.stdin.write(b"\n")
    family.stdin.flush()
    os.waitid(os.P_PID, family.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped
    assert not Path(f"/proc/{leaf}").exists()
    assert processes.cpu_s(family.pid) >= before_s >= 0.28


class Gone:
    """A thread that ended after it was listed."""

    def __truediv__(self, name):
        return self

    def read_text(self):
        raise FileNotFoundError


def test_a_thread_that_ends_hides_no_other_threads_children(family, monkeypatch):
    listed = Path.iterdir
    monkeypatch.setattr(processes.Path, "iterdir", lambda self: [Gone(), *listed(self)])
    assert len(processes.children(family.pid)) == 1


def test_find_takes_the_guarded_one_of_a_line(family):
    assert processes.find(family.pid, "-c") == processes.tree(family.pid)[1].pid


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_paused_tree_stands_still_until_it_is_resumed(family):
    pids = [one.pid for one in processes.tree(family.pid)]
    processes.pause(family.pid)
    while any(state(pid) != "T" for pid in pids):
        time.sleep(0.01)
    processes.resume(family.pid)
    while any(state(pid) == "T" for pid in pids):
        time.sleep(0.01)


def test_a_process_does_not_pause_itself():
    with pytest.raises(ValueError, match=f"process {os.getpid()} cannot be paused"):
        processes.pause(os.getpid())


def test_equal_names_are_told_apart():
    rows = [processes.Process(pid, "stub m/1", 1.0, 10.0) for pid in (9, 3, 5)]
    found = processes.by_name(rows)
    assert {name: one.pid for name, one in found.items()} == {
        "stub m/1": 3,
        "stub m/1 #2": 5,
        "stub m/1 #3": 9,
    }


def test_a_watch_samples_at_both_ends(family):
    with processes.Watch(family.pid, interval_s=60) as watch:
        pass
    assert len(watch.samples) == 2
    assert watch.samples[0].total_mib > 2
    assert watch.samples[1].at_s >= watch.samples[0].at_s


def prediction(label, *entities, score=0.9):
    return Prediction(label, {label: score}, tuple(entities))


CITY = Entity("city", "Lyon", 3, 7, 0.8)
RIGHT = {"A": [prediction("book", CITY)], "B": [prediction("cancel", CITY)]}


class Given:
    """An endpoint whose replies are given."""

    texts = ("in Lyon",)

    def __init__(self, *replies):
        self._replies = replies

    def read(self, reply):
        found = self._replies[int(reply)]
        if isinstance(found, Exception):
            raise found
        return found

    def judge(self, statuses=None, tolerance=1e-3):
        calls = Calls()
        for number in range(len(self._replies)):
            calls.add(0, 0.0, 0.0, 0.001, statuses[number] if statuses else "OK")
            calls.replies.append(str(number).encode())
        return judge(calls, self, {"1": "A", "2": "B"}, RIGHT, tolerance)


def test_right_answers_of_both_versions():
    verdict = Given(Reply("1", RIGHT["A"][0]), Reply("2", RIGHT["B"][0])).judge()
    assert verdict.faults == 0
    assert verdict.by_version == {"1": 1, "2": 1}
    assert verdict.examples == []


def test_another_versions_answer_is_wrong_and_told_apart_from_a_broken_one():
    moved = Entity("city", "Lyon", 2, 7, 0.8)
    verdict = Given(
        Reply("1", RIGHT["B"][0]),
        Reply("2", prediction("cancel", moved)),
        Reply("1", RIGHT["A"][0]),
    ).judge()
    assert (verdict.wrong, verdict.matching_only_other, verdict.faults) == (2, 1, 2)
    assert "version 1: cancel" in verdict.examples[0]["answer"]
    assert verdict.examples[0]["expected"].startswith("book")


@pytest.mark.parametrize(("off", "wrong"), [(0.0005, 0), (0.002, 1)])
def test_scores_have_a_tolerance(off, wrong):
    near = prediction("book", CITY, score=0.9 - off)
    verdict = Given(Reply("1", near)).judge()
    assert verdict.wrong == wrong
    assert verdict.largest_score_difference == pytest.approx(off)


def test_an_entitys_score_counts_too():
    other = Entity("city", "Lyon", 3, 7, 0.7)
    assert Given(Reply("1", prediction("book", other))).judge().wrong == 1


def test_failures_strangers_and_what_cannot_be_read_are_faults():
    broken = ServerError("damaged")
    verdict = Given(Reply("3", RIGHT["A"][0]), broken, Reply("1", RIGHT["A"][0])).judge(
        statuses=["OK", "OK", "UNAVAILABLE"]
    )
    assert (verdict.of_no_version, verdict.unreadable) == (1, 1)
    assert verdict.failed == {"UNAVAILABLE": 1}
    assert verdict.faults == 3


def test_differences():
    assert difference(RIGHT["A"][0], RIGHT["B"][0]) is None
    assert difference(RIGHT["A"][0], RIGHT["A"][0]) == 0
    assert distinguishing(RIGHT["A"], RIGHT["B"], 1e-3) == 1
    assert distinguishing(RIGHT["A"], RIGHT["A"], 1e-3) == 0
