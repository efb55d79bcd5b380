"""Open loops at given and at sought rates: search, figures, the scenarios on a fake Triton."""

import argparse
import json
import os

import pytest

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.results import read_results
from multitask_benchmarks.serving import max_rate, meter, rates, servers, steady
from multitask_benchmarks.serving.calls import Calls
from multitask_benchmarks.serving.figures import UNITS, Figures, costs, triton_view
from multitask_benchmarks.serving.meter import Meter, Spent
from multitask_benchmarks.serving.opened import Generators
from multitask_benchmarks.serving.processes import pss_mib, tree
from multitask_benchmarks.serving.search import Search
from multitask_benchmarks.serving.served import Served
from multitask_client.answers import Statistics

TEXTS = [f"{'x' * number} room {number}" for number in range(20)]


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(steady, "SETTLE_S", 0.2)
    monkeypatch.setattr(servers, "IDLE_S", 0.02)


@pytest.fixture
def fake(server):
    return servers.Server(Served("fake", server.url, "", os.getpid(), {"kind": "triton"}), TEXTS)


# --- the search


@pytest.mark.parametrize("limit", [3.1, 60.0, 99.0, 100.0, 101.0, 140.0, 2500.0])
@pytest.mark.parametrize("step", [1.15, 1.4, 3.0])
def test_a_search_ends_just_below_the_limit(limit, step):
    search = Search(lambda rate: rate <= limit, tolerance=0.05)
    found = search.highest(100.0, step)
    assert limit / 1.05 <= found <= limit
    bad = [rate for rate, good in search.tried if not good]
    assert min(bad) / found <= 1.05
    assert all(good == (rate <= limit) for rate, good in search.tried)
    assert len({rate for rate, _ in search.tried}) == len(search.tried), "a rate tried twice"


def test_a_search_near_its_answer_is_short():
    search = Search(lambda rate: rate <= 103.0, tolerance=0.05)
    search.highest(100.0, 1.15)
    assert len(search.tried) <= 4


def test_a_search_gives_up_far_from_its_start():
    nothing = Search(lambda rate: False, tolerance=0.05)
    assert nothing.highest(100.0, 2.0) is None
    assert 0.1 < min(rate for rate, _ in nothing.tried) < 2
    everything = Search(lambda rate: True, tolerance=0.05)
    assert everything.highest(100.0, 2.0) >= 100 * 100.0
    assert len(everything.tried) < 12


# --- figures


def spent(triton=None):
    return Spent(cpu_s=2.0, triton=triton, rss_mib=300.0, pss_mib=250.0)


def test_tritons_view_is_means_a_text():
    found = triton_view(spent(Statistics(100, 20, queue_ms=500.0, compute_ms=1000.0)))
    assert found == {"queue_ms": 5.0, "compute_ms": 10.0, "mean_batch": 5.0}
    for nothing in (None, Statistics(0, 0, 0.0, 0.0)):
        assert set(triton_view(spent(nothing)).values()) == {None}


def test_costs_are_a_text_and_unknown_without_one():
    found = costs(spent(), client_cpu_s=0.5, texts=1000)
    assert (found["server_cpu_ms_a_text"], found["client_cpu_ms_a_text"]) == (2.0, 0.5)
    assert (found["server_rss_mib"], found["server_pss_mib"]) == (300.0, 250.0)
    assert costs(spent(), 0.5, texts=0)["server_cpu_ms_a_text"] is None


def test_figures_carry_units_and_leave_out_rounds_without_a_value():
    figures = Figures("fake", {"rate_per_s": 10.0})
    figures.add({"p99_ms": 4.0, "queue_ms": None})
    figures.add({"p99_ms": 6.0, "queue_ms": 1.0})
    measured = figures.measured()
    assert measured.metrics["p99_ms"].rounds == (4.0, 6.0)
    assert measured.metrics["p99_ms"].unit == "ms"
    assert measured.metrics["queue_ms"].rounds == (1.0,)
    assert (figures.median("p99_ms"), figures.median("p50_ms")) == (5.0, None)
    with pytest.raises(AssertionError, match="speed_ms"):
        figures.add({"speed_ms": 1.0})


def planted():
    """A call every 10 ms for 2 s: slow and late in the first second, then one in ten refused."""
    calls = Calls()
    for number in range(200):
        due_s = 50.0 + 0.01 * number
        slow = number < 100
        late_s, took_s = (0.05, 0.4) if slow else (0.001, 0.02)
        status = "OK" if slow or number % 10 else "UNAVAILABLE: full"
        calls.add(number, due_s, due_s + late_s, due_s + took_s, status)
    return calls


def test_the_settling_is_left_out():
    held = steady.after(planted(), 0.995)
    assert held.index == list(range(100, 200))


def test_the_clients_view_counts_what_was_refused():
    counted = {"queue_ms": 4.0, "compute_ms": 6.0}
    found = steady.client_view(steady.after(planted(), 0.995), 1.0, counted)
    assert found["sent_per_s"] == 100.0
    assert found["answered_share"] == pytest.approx(0.9)
    assert found["p95_ms"] == found["p50_ms"] == pytest.approx(20.0)
    assert found["p99_ms"] is None, "of 90 answers it would be the slowest"
    assert found["late_p99_ms"] == found["late_p50_ms"] == pytest.approx(1.0)
    assert found["outside_ms"] == pytest.approx(10.0)
    assert set(found) <= set(UNITS)


def test_a_view_of_refusals_alone_has_no_latency():
    refused = planted().refused()
    found = steady.client_view(refused, 1.0, {"queue_ms": None, "compute_ms": None})
    assert (found["answered_share"], found["p99_ms"]) == (0.0, None)
    assert "outside_ms" not in found


class Planted:
    """Generators whose server answers 50 requests/s, however many it is sent."""

    def run(self, endpoint, phases, seed):
        calls = Calls()
        for number in range(round(100 * sum(phase.seconds for phase in phases))):
            due_s = 50.0 + 0.01 * number
            calls.add(number, due_s, due_s, 50.0 + 0.02 * (number + 1), "OK")
        return calls


def test_late_answers_are_not_counted_in_the_time_before_them(fake):
    """A queue that grows hides in the number of requests, all of which are answered in the end."""
    held, found = steady.hold(fake, Planted(), rate=100.0, seconds=2.0, seed=0)
    assert len(held) == pytest.approx(200, abs=1)
    assert found["answered_share"] == 1
    assert found["sent_per_s"] == pytest.approx(100, abs=1)
    assert found["answers_per_s"] == pytest.approx(50, abs=1)


def test_answers_count_by_when_they_came():
    calls = Calls()
    for due_s, end_s, status in ((0, 0.5, "OK"), (0.9, 1.1, "OK"), (1.2, 1.4, "OK"),
                                 (1.3, 1.5, "UNAVAILABLE"), (1.9, 2.1, "OK")):  # fmt: skip
        calls.add(0, due_s, due_s, end_s, status)
    assert steady.answers_within(calls, 1.0, 1.0) == 2


@pytest.mark.parametrize(("target_ms", "share"), [(400.1, 0.95), (30.0, 0.45), (10.0, 0.0)])
def test_in_time_is_of_all_calls(target_ms, share):
    assert steady.within_share(planted(), target_ms) == pytest.approx(share)
    assert steady.within_share(Calls(), target_ms) == 0


# --- what a server spends


def test_a_meter_reads_cpu_memory_and_tritons_counters(server, fake):
    with Meter(fake.served) as watched:
        fake.predict()
    found = watched.spent
    assert found.triton.inferences == len(TEXTS)
    assert found.rss_mib > found.pss_mib / 2 > 5
    assert found.cpu_s >= 0


def test_a_failure_in_the_block_is_not_hidden_by_the_meter(fake, monkeypatch):
    with pytest.raises(RuntimeError, match="gone"), Meter(fake.served):
        monkeypatch.setattr(meter, "Client", None)  # a server that is gone cannot be asked
        raise RuntimeError("gone")


def test_proportional_memory_is_at_most_resident_memory():
    resident = sum(process.memory_mib for process in tree(os.getpid()))
    assert 0 < pss_mib(os.getpid()) <= 1.5 * resident
    assert pss_mib(2**22 + 1) == 0


# --- rates


def options(**more):
    given = {
        "rounds": 2, "seconds": 0.3, "seed": 3, "callers": 4, "tolerance": 0.05,
        "confirm_seconds": 0.5, "p99_ms": [50.0], "shares": [0.5], "rates": [],
    }  # fmt: skip
    return argparse.Namespace(**{**given, **more})


def test_rates_are_measured_in_rounds(fake, render):
    with Generators(1) as generators:
        given = rates.points(fake, options(rates=[40.0, 120.0]))
        found = rates.measure([fake], generators, given, options())
    assert [one.point for one in found] == [{"rate_per_s": 40.0}, {"rate_per_s": 120.0}]
    slow, fast = (one.measured().metrics for one in found)
    assert fast["sent_per_s"].median > 1.5 * slow["sent_per_s"].median
    assert fast["answered_share"].rounds == (1.0, 1.0)
    for name in ("p50_ms", "p95_ms", "late_p50_ms", "client_cpu_ms_a_text", "server_pss_mib"):
        assert len(fast[name].rounds) == 2
    text = render(rates.table(found))
    assert "late p99 ms" in text
    assert json.loads(json.dumps(rates.brief(found)))[1]["rate_per_s"] == 120.0


def test_a_server_that_runs_already_is_measured_at_its_address(server, corpus, tmp_path):
    given = ["--rates", "50", "--rounds", "2", "--seconds", "0.3", "--data", str(corpus)]
    kept = ["--name", "fake", "--output", str(tmp_path)]
    assert main(["serving", "rates", "--url", f"there={server.url}", *given, *kept]) == 0
    (path,) = tmp_path.glob("fake_*.json")
    record = read_results(path).scenarios["rates"]
    (measured,) = record.measurements
    assert (measured.subject, measured.point) == ("there", {"rate_per_s": 50.0})
    assert measured.metrics["answered_share"].rounds == (1.0, 1.0)
    # Nobody here knows what it spends.
    assert not {name for name in measured.metrics if name.startswith("server_")}
    subject = record.details["subjects"]["there"]
    assert (subject["triton"], subject["paused"]) == ("0.0.0-fake", False)
    assert server.url not in path.read_text()


def test_a_server_that_does_not_run_is_named(capsys, corpus):
    for url, told in (("127.0.0.1:9", "127.0.0.1:9"), ("there", "--url 'there': write HOST:PORT")):
        assert main(["serving", "rates", "--url", url, "--data", str(corpus)]) == 1
        assert told in capsys.readouterr().err
    assert main(["serving", "rates", "--data", str(corpus)]) == 1
    assert "--repository DIR, or --url HOST:PORT" in capsys.readouterr().err


def test_shares_of_the_capacity_have_two_figures_and_name_their_points(fake, monkeypatch):
    """Two runs measure other capacities, and have the same points all the same."""
    found = []
    for most in (1234.0, 1321.0):
        stats = argparse.Namespace(texts_per_s=most)
        monkeypatch.setattr(rates, "capacity", lambda endpoint, callers, stats=stats: stats)
        found.append(rates.points(fake, options(shares=[0.2, 0.9])))
    assert found == [
        [(250.0, {"load": 0.2}), (1100.0, {"load": 0.9})],
        [(260.0, {"load": 0.2}), (1200.0, {"load": 0.9})],
    ]


# --- the highest rate


class Queue:
    """Stands for `hold`: in time up to a limit, and a little less of it when held for long."""

    def __init__(self, limit, confirmed):
        self.limits, self.held = {0.3: limit, 0.5: confirmed}, []

    def __call__(self, server, generators, rate, seconds, seed):
        self.held.append((rate, seconds, seed))
        calls = Calls()
        took_s = 0.02 if rate <= self.limits[seconds] else 0.2
        for number in range(100):
            calls.add(number, number, number, number + took_s, "OK")
        return calls, {"p99_ms": 1e3 * took_s}


def hunt(fake, monkeypatch, limit, confirmed):
    queue = Queue(limit, confirmed)
    monkeypatch.setattr(max_rate, "hold", queue)
    stats = argparse.Namespace(texts_per_s=500.0)
    monkeypatch.setattr(max_rate, "capacity", lambda endpoint, callers: stats)
    (found,) = max_rate.measure([fake], None, options())
    return queue, found


def test_every_round_searches_and_confirms(fake, monkeypatch, render):
    queue, found = hunt(fake, monkeypatch, limit=280.0, confirmed=270.0)
    values = found.figures.values["max_rate_per_s"]
    assert len(values) == len(found.trails) == 2
    assert all(270 / 1.05 / 1.05 <= value <= 270 for value in values)
    assert found.figures.values["within_share"] == [1.0, 1.0]
    assert len(found.trails[1]) < len(found.trails[0]), "the second begins where the first ended"
    seeds = [seed for _, _, seed in queue.held]
    assert seeds == list(range(3, 3 + len(seeds))), "arrivals repeat"
    assert "highest rate/s" in render(max_rate.table([found]))
    (line,) = max_rate.brief([found])
    assert line["target_p99_ms"] == 50.0


def test_a_rate_that_never_holds_counts_as_none(fake, monkeypatch, render):
    _, never = hunt(fake, monkeypatch, limit=0.0, confirmed=0.0)
    assert never.figures.values == {"max_rate_per_s": [0.0, 0.0]}
    assert "0.00" in render(max_rate.table([never]))
    _, unconfirmed = hunt(fake, monkeypatch, limit=280.0, confirmed=1.0)
    assert unconfirmed.figures.values == {"max_rate_per_s": [0.0, 0.0]}
    assert unconfirmed.trails[0][-1][1] is False


def test_a_percentile_that_some_rounds_lack_is_left_out() -> None:
    figures = Figures("fake", {"load": 0.9})
    figures.add({"p50_ms": 1.0, "p99_ms": 9.0})
    figures.add({"p50_ms": 2.0, "p99_ms": None})
    assert set(figures.measured().metrics) == {"p50_ms"}
