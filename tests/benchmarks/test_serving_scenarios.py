"""The scenarios' own logic on a fake Triton, and the command's options."""

import argparse
import asyncio
import json
import os
import subprocess
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from multitask_benchmarks.recording import write_record
from multitask_benchmarks.results import ScenarioRecord, read_results
from multitask_benchmarks.serving import (
    alone,
    closed,
    mixed,
    overload,
    profile,
    servers,
    soak,
    throughput,
)
from multitask_benchmarks.serving.arrivals import Phase
from multitask_benchmarks.serving.calls import Calls
from multitask_benchmarks.serving.closed import once
from multitask_benchmarks.serving.opened import Generators
from multitask_benchmarks.serving.peers import Peer
from multitask_benchmarks.serving.processes import Sample
from multitask_benchmarks.serving.served import Served
from multitask_benchmarks.serving.web import HttpForm
from multitask_benchmarks.serving.wire import GrpcEndpoint
from multitask_benchmarks.subjects import InProcess
from multitask_core.errors import ConfigError, ParityError, ServeError
from multitask_core.prediction import Prediction

TEXTS = [f"{'x' * number} room {number}" for number in range(20)]
ODD = Prediction("odd", {"odd": 1.0}, ())


@pytest.fixture
def served(server):
    return Served("fake", server.url, "", os.getpid(), {"kind": "triton"})


def common(tmp_path, corpus, **more):
    """Options as the command line would give them."""
    given = {"data": str(corpus), "texts": 20, "name": "tiny", "output": tmp_path / "out"}
    return argparse.Namespace(scenario="soak", kind="serving soak", as_=None, **given, **more)


def rendered(tables, render):
    return "\n".join(map(render, tables))


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    """Waits that a real machine needs and a fake server does not."""
    monkeypatch.setattr(servers, "IDLE_S", 0.02)
    monkeypatch.setattr(closed, "WARM_UP_S", 0.1)
    monkeypatch.setattr(closed, "CAPACITY_S", 0.1)


# --- throughput


@pytest.fixture
def idle():
    """A process that waits: a server's, as far as its CPU time goes."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_throughput_measures_and_compares(server, idle, render):
    subjects = [
        servers.Server(Served(name, server.url, "", idle.pid, {"kind": "triton"}), TEXTS)
        for name in ("fake", "other")
    ]
    reference = server.answer(TEXTS)
    agreement = servers.check(subjects, TEXTS, reference, allow_different=False)
    assert [one["all_equal"] for one in agreement.values()] == [20, 20]
    results = throughput.measure(subjects, TEXTS, [1, 4], rounds=2, seconds=0.1)
    assert [(one.cell.subject, one.cell.size) for one in results] == [
        ("fake", 1), ("other", 1), ("fake", 4), ("other", 4),
    ]  # fmt: skip
    client_ms = results[0].cell.measured("callers").metrics["client_cpu_ms_a_text"].rounds
    assert len(client_ms) == 2
    assert all(value > 0 for value in client_ms)
    assert results[1].speedup.median > 0
    text = rendered([throughput.cpu_table(results)], render)
    assert "server ms" in text
    assert throughput.brief(results)[3]["callers"] == 4


def test_throughput_refuses_other_answers_of_ours_and_counts_a_peers(server, served):
    reference = [Prediction("odd", {"odd": 1.0}, one.entities) for one in server.answer(TEXTS)]
    ours = servers.Server(served, TEXTS)
    with pytest.raises(ParityError, match="differ on 10 of 20"):
        servers.check([ours], TEXTS, reference, allow_different=False)
    counts = servers.check([ours], TEXTS, reference, allow_different=True)
    assert counts["fake"]["labels_equal"] == 10
    assert counts["fake"]["examples"][0]["reference"].startswith("odd")


@pytest.mark.parametrize(("other", "refused"), [(1, False), (2, True)])
def test_a_peer_that_serves_another_model_is_refused(server, other, refused):
    reference = server.answer(TEXTS)
    odd = [replace(one, label="strange") for one in reference[:other]]
    peer = SimpleNamespace(name="peer", triton=False, predict=lambda: [*odd, *reference[other:]])
    if refused:
        with pytest.raises(ServeError, match="another label than the checkpoint on 2 of 20 texts"):
            servers.check([peer], TEXTS, reference, allow_different=True)
    else:
        counts = servers.check([peer], TEXTS, reference, allow_different=True)
        assert counts["peer"]["labels_equal"] == 19


def test_a_server_goes_on_with_the_texts_where_its_last_round_ended(server, idle):
    one = servers.Server(Served("fake", server.url, "", idle.pid, {"kind": "triton"}), TEXTS)
    for _ in range(3):
        one.measure(TEXTS, 1, 0.02)
    sent = [texts[0] for texts in server.requests]
    assert sent == [TEXTS[number % len(TEXTS)] for number in range(len(sent))]


def test_restless_servers_are_paused_in_the_others_turns(monkeypatch, server):
    log = []
    monkeypatch.setattr(servers, "pause", lambda pid: log.append(("pause", pid)))
    monkeypatch.setattr(servers, "resume", lambda pid: log.append(("resume", pid)))
    monkeypatch.setattr(servers, "cpu_s", lambda pid: next(clock) if pid == 7 else 0.0)
    clock = iter(float(number) for number in range(1000))
    subjects = [
        servers.Server(Served(name, server.url, "", pid, {"kind": "triton"}), TEXTS)
        for name, pid in (("quiet", 6), ("busy", 7))
    ]
    with servers.quiet(subjects):
        throughput.measure(subjects, TEXTS, [1], rounds=1, seconds=0.05)
    assert log == [("pause", 7), *[("resume", 7), ("pause", 7)] * 2, ("resume", 7)]


def test_a_line_up_leaves_out_what_does_not_run_or_answer(
    served, idle, checkpoint, monkeypatch, render
):
    """One peer cannot start, another does not answer; ours stays and is checked."""
    ended = []

    @contextmanager
    def serve_peer(peer, folder):
        if peer.name == "torchserve":
            raise ServeError("no java on PATH")
        try:
            yield Served(peer.title, "127.0.0.1:1", "", os.getpid(), {}, HttpForm())
        finally:
            ended.append(peer.title)

    monkeypatch.setattr(servers, "serve_peer", serve_peer)
    ours = replace(served, pid=idle.pid)
    monkeypatch.setattr(servers, "serve_triton", lambda name, folder: nullcontext(ours))
    monkeypatch.setattr(servers, "open_checkpoint", lambda folder: checkpoint)
    peers = [Peer("torchserve", "fp32", Path("p")), Peer("litserve", "bf16", Path("p"))]
    chosen = servers.Choice([("fake", Path("r"))], peers, [])
    with servers.start_all(chosen, TEXTS, Path("c"), allow_different=False) as line_up:
        assert ended == ["litserve bf16"], "it is ended at once"
        assert [one.name for one in line_up.servers] == ["fake"]
        assert line_up.baseline == line_up.ours.name == "fake"
    assert line_up.not_run["torchserve fp32"] == "no java on PATH"
    assert "20 of 20 calls failed" in line_up.not_run["litserve bf16"]
    assert line_up.agreement["fake"]["all_equal"] == 20
    assert json.loads(json.dumps(line_up.to_dict()))["subjects"]["fake"]["kind"] == "triton"
    assert "no java on PATH" in rendered(line_up.tables(), render)


@pytest.mark.parametrize("lenient", [False, True])
def test_one_alone_is_compared_where_a_checkpoint_is_given(served, model, monkeypatch, lenient):
    monkeypatch.setattr(alone, "serve_triton", lambda name, folder: nullcontext(served))
    given, start = (
        {"allow_different": lenient},
        partial(alone.serve_alone, "fake", Path("r"), TEXTS),
    )
    with start(argparse.Namespace(checkpoint=None, **given)) as (_, about):
        assert about == {"subject": {"kind": "triton"}, "agreement": {}}
    wrong = InProcess("checkpoint", type(model)(lambda texts: [ODD] * len(texts)), {})
    for answers, equal in ((InProcess("checkpoint", model, {}), 20), (wrong, 0)):
        monkeypatch.setattr(alone, "open_checkpoint", lambda folder, answers=answers: answers)
        refused = not (equal or lenient)
        with pytest.raises(ParityError) if refused else nullcontext():
            options = argparse.Namespace(checkpoint=Path("c"), **given)
            with start(options) as (_, about):
                assert about["agreement"]["fake"]["all_equal"] == equal
                assert not refused


def test_peers_need_their_weights():
    ours = ["localhost:8001"]
    options = argparse.Namespace(repository=[], url=ours, peer=["litserve"], checkpoint=None)
    with pytest.raises(ConfigError, match="--peer needs --checkpoint"):
        servers.choose_servers(options)


# --- profile


def test_profile_shares():
    one = profile.Profile(32, texts=[100, 100], rates=[100.0, 90.0])
    one.cpu_s = [{"tritonserver": 0.1, "stub": 0.9}, {"tritonserver": 0.2, "stub": 0.8}]
    one.counted = [{"multitask_encoder_cpu_seconds_total": 0.8}] * 2
    one.client_cpu_s, one.batches = [0.1, 0.1], [8.0, None]
    one.encoder_rates = [{"2 sessions": 150.0, "1 sessions": 200.0}, {"2 sessions": 180.0}]
    assert one.outside() == pytest.approx([0.2, 0.2])
    assert one.of_limit().median == pytest.approx(0.5)
    alone, server = one.measured()
    assert alone.metrics["texts_per_s"].rounds == (200.0, 180.0)
    assert server.metrics["server_cpu_ms_a_text"].rounds == (10.0, 10.0)
    assert json.loads(json.dumps(one.to_dict()))["encoder_rates"][0]["1 sessions"] == 200
    one.counted = [{}, {}]
    assert one.outside() == []
    assert "outside_encoder_share" not in one.measured()[1].metrics
    assert profile.brief([one])[0]["outside_encoder"] is None


def test_profile_tables(render):
    one = profile.Profile(8, texts=[100], rates=[50.0], cpu_s=[{"stub m/1": 0.5}])
    one.counted, one.client_cpu_s = [{"multitask_encoder_cpu_seconds_total": 0.4}], [0.03]
    one.batches, one.encoder_rates = [4.0], [{"1 sessions": 100.0}]
    text = rendered(profile.tables([one]), render)
    for row in ("stub m/1", "of these: the encoder", "the callers", "0.20 [0.20, 0.20]", "5.00"):
        assert row in text


# --- mixed


def test_long_texts_have_their_words_from_the_data():
    found = mixed.long_texts(TEXTS, 400, count=3)
    assert [len(text.split()) for text in found] == [400] * 3
    assert set(found[0].split()) <= {word for text in TEXTS for word in text.split()}
    assert len(set(found)) == 3


def test_mixed_keeps_the_share_and_the_callers(server, served):
    long = mixed.long_texts(TEXTS, 50, count=4)
    endpoint, heavy = GrpcEndpoint(served.url, TEXTS), GrpcEndpoint(served.url, long)
    short, slow = mixed.run_mixed(endpoint, heavy, 4, 0.2, 0.4, most_long=8)
    assert 0 < len(slow) <= len(short) / 4
    assert {"OK"} == {*short.statuses(), *slow.statuses()}
    sent = [texts[0] for texts in server.requests]
    assert sum(text in long for text in sent) == len(slow)


@pytest.mark.parametrize(("answers", "sent"), [(True, 25), (False, 8)])
def test_long_texts_are_sent_by_share_and_wait_when_too_many_are_under_way(answers, sent):
    class Connection:
        def __init__(self):
            self.sent, self.gate = [], asyncio.Event()

        async def send(self, index):
            self.sent.append(index)
            await self.gate.wait()
            return b""

    async def run():
        connection = Connection()
        if answers:
            connection.gate.set()
        long = mixed.LongTexts(connection, texts=10, share=0.2, most=8)
        for _ in range(101):  # four short ones for a long one, and rounding
            long.follow()
            for _ in range(10):
                await asyncio.sleep(0)
        assert len(connection.sent) == sent
        assert connection.sent[:12] == [number % 10 for number in range(sent)][:12]
        connection.gate.set()
        await long.finish()
        assert len(long.calls) == sent

    asyncio.run(run())


def test_mixed_alone_sends_nothing_long(server, served):
    heavy = GrpcEndpoint(served.url, ["long " * 100])
    short, slow = mixed.run_mixed(GrpcEndpoint(served.url, TEXTS), heavy, 2, 0.0, 0.1, 8)
    assert (len(slow), len(server.requests)) == (0, len(short))


def test_mixed_rounds_and_ratio(served, render):
    options = argparse.Namespace(
        sizes=[2], share=0.1, rounds=2, seconds=0.2, most_long=4, texts=20, words=30
    )
    (mix,) = mixed.measure(served, TEXTS, ["a long text " * 10] * 3, options)
    assert (mix.callers, len(mix.long), len(mix.mixed.values["long_share"])) == (2, 2, 2)
    names = {"p50_ms", "p95_ms", "p99_ms", "texts_per_s"}
    short, beside = (set(one.metrics) for one in mix.measured())
    assert (names <= short, beside - short) == (True, {"long_share"})
    alone, mixture = (one.metrics["p99_ms"].rounds for one in mix.measured())
    expected = [b / a for a, b in zip(alone, mixture, strict=True)]
    assert mix.ratio("p99_ms").median == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert "2 callers" in rendered([mixed.table([mix])], render)


# --- overload


def planted(start_s=100.0):
    """Half load at 10 ms, an overload of which two thirds are refused in 5 ms, a slow recovery."""
    calls = Calls()
    for number in range(300):
        moment_s = start_s + 0.01 * number
        phase, late_s = number // 100, 0.002
        refused = phase == 1 and number % 3
        took_s = 0.005 if refused else (0.010, 0.500, 0.040 if number < 250 else 0.012)[phase]
        status = "UNAVAILABLE: queue full" if refused else "OK"
        calls.add(number, moment_s, moment_s + late_s, moment_s + late_s + took_s, status)
    return calls


PHASES = [Phase("before", 100, 1.0), Phase("overload", 100, 1.0), Phase("after", 100, 1.0)]


def test_overload_analysis_of_planted_calls():
    found = overload.analyse(planted(), PHASES, slack=1.5)
    during = found["phases"]["overload"]
    counts = (during["sent"], during["answered"]["count"], during["refused"]["count"])
    assert counts == (100, 33, 67)
    assert during["share_answered"] == 0.33
    assert during["answered"]["p99_ms"] == pytest.approx(502)
    assert during["refused"]["p99_ms"] == pytest.approx(7)
    assert during["refused_since_sent"]["p99_ms"] == pytest.approx(5)
    assert during["lateness"]["p99_ms"] == pytest.approx(2)
    assert during["refused_by_reason"]["UNAVAILABLE: queue full"]["count"] == 67
    assert found["phases"]["before"]["statuses"] == {"OK": 100}
    assert found["recovery"]["limit_p99_ms"] == pytest.approx(18)
    assert found["recovery"]["seconds"] == 1.0  # the first half second after it was still slow
    assert found["recovery"]["late_answers_s"] == pytest.approx(0.49, abs=0.03)


def test_overload_without_recovery_says_so(render):
    slow = planted()
    slow.latency_ms[250:] = [40.0] * 50
    found = overload.analyse(slow, PHASES, slack=1.5)
    assert found["recovery"]["seconds"] is None
    result = {
        **found, "capacity_per_s": 50.0, "unloaded": {"p50_ms": 1.0, "p99_ms": 2.0},
        "client_cpu_cores": 0.1,
        "memory": overload.memory([Sample(100.0, 0.1, {"a": 10.0, "b": 5.0})], 100.0),
    }  # fmt: skip
    text = rendered(overload.tables(result), render)
    assert "not within the run" in text
    assert "33.0%" in text
    assert "overload: UNAVAILABLE: queue full" in text
    assert overload.brief(result)["recovery_s"] is None
    before, during, _ = overload.measured(result)
    assert during.point == {"phase": "overload"}
    shares = [one.metrics["answered_share"].rounds for one in (before, during)]
    assert shares == [(1.0,), (0.33,)]


def test_overload_runs_all_phases(server, served):
    options = argparse.Namespace(
        capacity=40.0, factor=3.0, seconds=0.6, half_seconds=0.6, callers=4, slack=1.5, seed=0
    )
    with Generators(1) as generators:
        result = overload.measure(served, generators, TEXTS, options)
    sent = {name: one["sent"] for name, one in result["phases"].items()}
    assert sent["overload"] > 2 * sent["before"] > 0
    assert len(result["memory"]["series"]) >= 2
    assert json.loads(json.dumps(result))["capacity_per_s"] == 40


# --- soak


def test_memory_slopes_leave_out_the_first_minutes():
    samples = [
        Sample(10.0 * n, 0.0, {"server": 100 + max(0, 60 - n), "stub": 50 + 0.1 * n})
        for n in range(200)
    ]
    found = soak.memory(samples, settle_s=600)
    slopes = found["slope_mib_an_hour"]
    assert slopes["server"]["per_hour"] == 0
    assert slopes["stub"]["per_hour"] == pytest.approx(36)
    assert slopes["all"]["grows"]
    assert soak.memory(samples, settle_s=0)["slope_mib_an_hour"]["server"]["per_hour"] < 0
    assert len(found["samples"]) == 200


def test_an_interrupted_soak_leaves_a_file(server, served, corpus, tmp_path, monkeypatch):
    options = common(
        tmp_path, corpus, minutes=60.0, load=0.5, rate=50.0, settle_minutes=0.0,
        sample_seconds=0.05, window_seconds=0.4, callers=4, seed=0, repository="x", artifact=None,
    )  # fmt: skip
    added = soak.Soak.add

    def stop_after_two(self, calls):
        added(self, calls)
        if len(self.windows) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(soak.Soak, "add", stop_after_two)
    monkeypatch.setattr(soak, "parse_repository", lambda value: ("fake", value))
    monkeypatch.setattr(soak, "read_texts", lambda data, count: TEXTS)
    about = {"subject": served.facts}
    monkeypatch.setattr(soak, "serve_alone", lambda *given: nullcontext((served, about)))
    with pytest.raises(KeyboardInterrupt):
        soak.execute(options)
    with pytest.raises(KeyboardInterrupt):
        soak.execute(options)  # over one that was not finished either
    (path,) = options.output.iterdir()
    assert list(read_results(path).scenarios) == ["soak"]
    assert path.name.startswith("tiny_")
    written = read_results(path).scenarios["soak"]
    assert len(written.measurements[0].metrics["p99_ms"].rounds) == 2
    record = written.details
    assert (record["finished"], len(record["windows"]), record["failed"]) == (False, 2, 0)
    assert record["sent"] == sum(one["sent"] for one in record["windows"]) > 10
    assert len(record["memory"]["samples"]) > 2


def test_an_interrupted_soak_does_not_replace_a_finished_one(corpus, tmp_path):
    options = common(tmp_path, corpus)
    whole, part = (
        ScenarioRecord.now(options.kind, {}, details={"finished": finished})
        for finished in (True, False)
    )
    soak.write_unfinished(options, part)
    path = write_record(options, whole)
    soak.write_unfinished(options, part)
    assert read_results(path).scenarios == {"soak": whole}
    soak.write_unfinished(options, part, " interrupted")
    assert read_results(path).scenarios == {"soak": whole, "soak interrupted": part}


def test_soak_counts_failures_and_shows_them(server, served, corpus, tmp_path, render):
    server.failures.extend([("UNAVAILABLE", "full")] * 3)
    options = common(
        tmp_path, corpus, minutes=0.01, load=0.5, rate=60.0, settle_minutes=0.0,
        sample_seconds=0.05, window_seconds=0.3, callers=4, seed=0,
    )  # fmt: skip
    calls = Calls()
    run = soak.Soak(served, options, {"subject": {}, "agreement": {}})
    run.watch.sample()
    connection_calls = closed.run_closed(GrpcEndpoint(served.url, TEXTS), once(10), 1)
    calls.extend(connection_calls)
    run.add(calls)
    record = run.details(finished=True)
    assert (record["sent"], record["failed"]) == (10, 3)
    assert record["windows"][0]["statuses"] == {"OK": 7, "UNAVAILABLE: full": 3}
    (measured,) = run.record(finished=True).measurements
    assert measured.metrics["answered_share"].rounds == (0.7,)
    assert "Memory" in rendered(soak.tables(record), render)
    assert soak.brief(record, 0.01)["failed"] == 3
