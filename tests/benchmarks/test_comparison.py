"""What `compare` calls: a planted slowdown yes, an unchanged rerun no, other machines by name."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitask_benchmarks import stats
from multitask_benchmarks.__main__ import main
from multitask_benchmarks.comparison import judge as judging
from multitask_benchmarks.comparison.command import figures_table, too_noisy
from multitask_benchmarks.comparison.judge import Thresholds, judge
from multitask_benchmarks.comparison.match import ALL_POINTS, compare_files, differences
from multitask_benchmarks.results import (
    Measured,
    Metric,
    ResultFile,
    ScenarioRecord,
    write_scenario,
)

CALLED = ("worse", "better")
POINTS = ({"batch": 1}, {"batch": 8}, {"batch": 32})
MACHINE = {"cpu": "Some CPU", "cpus": 2, "gpus": [], "packages": {"torch": "2"}, "git": None}


@pytest.fixture(scope="module", autouse=True)
def _fewer_resamples():
    """Enough for a verdict; the intervals' last digit is not tested here."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (stats, judging):
            patch.setattr(module, "_RESAMPLES", 400)
        yield


def make_run(seed, *, rounds=5, noise=0.03, drift=0.1, speed=None, machine=MACHINE, **config):
    """A run on a machine that is slower or faster as a whole, and drifts from round to round.

    speed: factor of a subject's speed; noise, drift: relative standard deviations.
    """
    random = np.random.default_rng(seed)
    whole = random.uniform(0.5, 2)
    measurements = []
    weather = {str(point): np.exp(random.normal(0, drift, rounds)) for point in POINTS}
    for subject, base in (("torch", 100.0), ("onnx", 300.0), ("int8", 900.0)):
        for point in POINTS:
            own = np.exp(random.normal(0, noise, rounds))
            rates = base * (speed or {}).get(subject, 1.0) * whole * weather[str(point)] * own
            metrics = {
                "rows_per_s": Metric.of(rates.tolist(), "1/s", "higher"),
                "p50_ms": Metric.of((1e3 / rates).tolist(), "ms", "lower"),
                "mean_batch": Metric.of([2.0] * rounds, "texts"),
            }
            measurements.append(Measured(subject, point, metrics))
    record = ScenarioRecord(
        "engines", "2026-11-23", machine, {"rounds": rounds, **config}, "torch", measurements
    )
    return ResultFile("m", {"engines": record})


def verdicts(before, after, **thresholds):
    found = compare_files(before, after, Thresholds(**thresholds))
    return {(one.subject, str(one.point), one.metric): one.change for one in found}


@pytest.mark.parametrize("seed", range(8))
def test_a_planted_slowdown_is_called_on_a_noisy_machine(seed):
    found = verdicts(make_run(seed), make_run(seed + 100, speed={"onnx": 0.8}))
    for (subject, point, metric), change in found.items():
        if subject == "onnx" and point == str(ALL_POINTS):
            assert (change.verdict, change.relative) == ("worse", True)
            wanted = 0.8 if metric == "rows_per_s" else 1.25
            assert change.ratio == pytest.approx(wanted, rel=0.1)
        elif subject == "int8":
            assert change.verdict in ("same", "within noise"), (point, metric, change)
    single = [one for key, one in found.items() if key[0] == "onnx"]
    assert sum(one.verdict == "worse" for one in single) > len(single) / 2


def test_a_speed_up_is_called_better():
    found = verdicts(make_run(1), make_run(2, speed={"int8": 1.3}))
    assert found["int8", str(ALL_POINTS), "rows_per_s"].verdict == "better"
    assert found["int8", str(ALL_POINTS), "p50_ms"].verdict == "better"


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    noise=st.floats(0.002, 0.05),
    drift=st.floats(0, 0.2),
    rounds=st.integers(5, 7),
)
def test_an_unchanged_rerun_is_almost_never_called(seed, noise, drift, rounds):
    before, after = (
        make_run(one, noise=noise, drift=drift, rounds=rounds) for one in (seed, seed + 10**7)
    )
    found = verdicts(before, after)
    called = [key for key, one in found.items() if one.relative and one.verdict in CALLED]
    # Of 16 relative figures; a subject's two metrics say the same thing.
    assert len(called) <= 2, called


def test_the_rate_of_false_alarms():
    """Of 2,000 unchanged figures each; `compare --help` states the rates."""
    rates = {}
    for noise in (0.02, 0.05, 0.1):
        random = np.random.default_rng(int(1000 * noise))
        alarms = 0
        for _ in range(2000):
            rounds = np.exp(random.normal(0, noise, (4, 5)))
            before, after, first, second = (one.tolist() for one in rounds)
            change = judge(before, after, "higher", Thresholds(), (first, second))
            alarms += change.verdict in CALLED
        rates[noise] = alarms / 2000
    assert rates[0.02] == 0
    assert rates[0.05] <= 0.005
    assert rates[0.1] <= 0.02


def test_the_baseline_itself_is_judged_as_it_stands():
    steady = {"noise": 0.01, "drift": 0.0}
    before = make_run(3, **steady)
    same_speed = replace(before.scenarios["engines"])
    slower = [
        replace(one, metrics={"rows_per_s": Metric.of([100, 101, 99, 100, 100], "1/s", "higher")})
        for one in same_speed.measurements
        if one.subject == "torch"
    ]
    first = ResultFile("m", {"engines": replace(same_speed, measurements=slower)})
    third = [
        replace(one, metrics={"rows_per_s": Metric.of([70, 71, 69, 70, 70], "1/s", "higher")})
        for one in slower
    ]
    second = ResultFile("m", {"engines": replace(same_speed, measurements=third)})
    found = verdicts(first, second)
    assert all(one.verdict == "worse" and not one.relative for one in found.values())
    assert {one.verdict for one in verdicts(first, second, absolute=0.4).values()} == {"same"}


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([1.0, 1.0], [0.5, 0.5], "within noise"),  # too few rounds
        ([1.0] * 5, [0.5] * 5, "worse"),
        ([0.0] * 5, [0.0] * 5, "same"),  # a share of nothing
        ([0.0] * 5, [1.0] * 5, "within noise"),
        ([1.0, 2.0, 1.5, 1.0, 2.0], [1.0, 1.9, 1.5, 1.1, 2.0], "within noise"),
    ],
)
def test_hard_cases(before, after, verdict):
    assert judge(before, after, "higher", Thresholds()).verdict == verdict


def test_rounds_without_their_baseline_are_judged_as_they_stand():
    change = judge([1.0] * 5, [0.9] * 5, "higher", Thresholds(), ([1.0] * 5, [1.0] * 4))
    assert (change.relative, change.verdict) == (False, "same")
    change = judge([1.0] * 5, [0.9] * 5, "higher", Thresholds(), ([1.0] * 5, [1.0] * 5))
    assert (change.relative, change.verdict) == (True, "worse")


def rows(subject, **rates):
    """Steady rounds of a subject by number of callers."""
    rounds = {
        int(name[1:]): [rate * one for one in (0.99, 1.0, 1.01)] for name, rate in rates.items()
    }
    return [
        Measured(subject, {"callers": callers}, {"rows_per_s": Metric.of(values, "1/s", "higher")})
        for callers, values in rounds.items()
    ]


def run_of(*measurements, baseline=""):
    flat = [one for several in measurements for one in several]
    return ResultFile(
        "m", {"one": ScenarioRecord("stages", "2026-11-23", MACHINE, {}, baseline, flat)}
    )


def test_points_are_taken_together_where_both_files_have_them():
    """The same code at 1, 8, 32 and then also at 64 callers is not called better or worse."""
    before = run_of(rows("ours", _1=100, _8=300, _32=900))
    after = run_of(rows("ours", _1=100, _8=300, _32=900, _64=5000))
    found = verdicts(before, after)
    assert len(found) == 4
    assert {one.verdict for one in found.values()} == {"same"}
    assert found["ours", str(ALL_POINTS), "rows_per_s"].ratio == pytest.approx(1)
    alone = verdicts(run_of(rows("ours", _1=100, _8=300)), run_of(rows("ours", _8=300, _32=900)))
    assert [point for _, point, _ in alone] == [str({"callers": 8})]


def test_points_are_taken_together_where_the_baseline_has_them_in_both_files():
    ours = rows("ours", _1=100, _8=300, _32=900)
    before = run_of(rows("base", _1=10, _8=10, _32=10), ours, baseline="base")
    after = run_of(rows("base", _1=10, _8=10), rows("ours", _1=100, _8=300, _32=300),
        baseline="base")  # fmt: skip
    found = verdicts(before, after)
    together = found["ours", str(ALL_POINTS), "rows_per_s"]
    assert (together.verdict, together.relative) == ("same", True)
    assert found["ours", str({"callers": 32}), "rows_per_s"].verdict == "worse"


def test_differences_are_named():
    other = {**MACHINE, "cpu": "Other CPU", "packages": {"torch": "3"}}
    before, after = make_run(1), make_run(2, machine=other, rounds=6, data_sha256="b")
    assert differences(before, before) == []
    record = after.scenarios["engines"]
    fewer = [one for one in record.measurements if one.subject != "int8" or one.point != POINTS[0]]
    record = replace(record, baseline="onnx", measurements=fewer)
    after = ResultFile("n", {"engines": record, "soak": record})
    found = differences(before, after)
    for line in (
        "model: 'm' → 'n'",
        "scenario 'soak' only in the second file",
        "engines: baseline: 'torch' → 'onnx'",
        "engines: hardware: 'some-2cpu' → 'other-2cpu'",
        "engines: machine packages torch: '2' → '3'",
        "engines: setting rounds: 5 → 6",
        "engines: setting data_sha256: None → 'b'",
        "engines: figures of 'int8 at batch 1' only in the first file",
    ):
        assert line in found
    assert not any(one.change.relative for one in compare_files(before, after, Thresholds()))


@pytest.fixture
def files(tmp_path):
    def files(**speeds):
        paths = []
        for seed, (name, speed) in enumerate(speeds.items()):
            (record,) = make_run(seed, noise=0.01, speed=speed).scenarios.values()
            paths.append(str(write_scenario(tmp_path / name, "m", "engines", record)))
        return paths

    return files


def test_the_command(files, capsys, tmp_path):
    given = files(before={}, after={"int8": 0.8})
    assert main(["compare", *given]) == 0
    out = capsys.readouterr().out
    line = json.loads(out.splitlines()[-1])
    assert {one["subject"] for one in line["worse"]} == {"int8"}
    assert "relative" in out
    assert "compared" in out
    assert main(["compare", *given, "--fail-on", "worse"]) == 3
    assert main(["compare", *given, "--fail-on", "worse", "--threshold", "0.5"]) == 0
    assert main(["compare", given[0], given[0], "--fail-on", "worse", "differences"]) == 0
    capsys.readouterr()


def test_a_machine_that_is_too_noisy_is_named(tmp_path, capsys):
    for noise, told in ((0.4, True), (0.01, False)):
        paths = []
        for seed in (0, 1):
            (record,) = make_run(seed, noise=noise).scenarios.values()
            folder = tmp_path / f"{noise}-{seed}"
            paths.append(str(write_scenario(folder, "m", "engines", record)))
        assert main(["compare", *paths]) == 0
        out = capsys.readouterr().out
        assert ("too noisy:" in out) is told
        assert json.loads(out.splitlines()[-1])["too_noisy"] is told


def test_a_slower_machine_can_be_told_from_a_slower_subject(files, capsys):
    slow = dict.fromkeys(("torch", "onnx", "int8"), 0.1)
    given = files(before={}, after=slow)
    assert main(["compare", *given, "--fail-on", "worse"]) == 3
    assert main(["compare", *given, "--fail-on", "worse-relative"]) == 0
    given = files(before={}, after={**slow, "int8": 0.07})
    assert main(["compare", *given, "--fail-on", "worse-relative"]) == 3
    capsys.readouterr()


def test_what_the_command_refuses(files, capsys):
    given = files(before={}, after={})
    assert main(["compare", *given, "--threshold", "5"]) == 1
    assert "0.05 is 5 %" in capsys.readouterr().err
    assert main(["compare", *given, "--scenario", "soak"]) == 1
    assert "no scenario 'soak'; it has: engines" in capsys.readouterr().err
    Path(given[1]).write_text("{}")
    assert main(["compare", *given]) == 1
    assert "schema_version" in capsys.readouterr().err


def test_the_table_shows_changes_first_and_all_on_request(render):
    found = compare_files(make_run(1), make_run(2, speed={"onnx": 0.6}), Thresholds())
    short = render(figures_table(found, Thresholds()))
    assert "int8" not in short
    assert "onnx" in short
    long = render(figures_table(found, Thresholds(), everything=True))
    assert "int8" in long
    assert f"{len(found)} figures compared" in long


@pytest.mark.slow
def test_a_real_artifact_with_a_subject_that_sleeps(
    tiny_artifact, corpus, tmp_path, monkeypatch, capsys
):
    """The tiny graphs take some milliseconds a batch; the sleep adds two hundred."""
    from multitask_core.session import OnnxEncoder

    def stages(name, *more):
        given = ["--artifact", str(tiny_artifact), "--data", str(corpus), "--name", "tiny"]
        short = ["--rounds", "5", "--seconds", "0.3", "--sizes", "4", "--output"]
        variants = ["--variant", "fp32", "--variant", "fp32-packed"]
        assert main(["stages", *given, *variants, *short, str(tmp_path / name)]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["file"]

    before = stages("before")
    answer = OnnxEncoder.__call__

    def slow(self, rows):
        if self.layout == "packed":
            time.sleep(0.2)
        return answer(self, rows)

    monkeypatch.setattr(OnnxEncoder, "__call__", slow)
    after = stages("after")
    assert main(["compare", before, after, "--fail-on", "worse"]) == 3
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    worse = {(one["subject"], one["metric"]) for one in line["worse"]}
    assert ("ONNX fp32-packed", "texts_per_s") in worse
    assert ("ONNX fp32-packed", "p50_ms") in worse


def run_with(subject, **metrics):
    """A file with one scenario whose subject has these metrics at one point, torch beside it."""
    rows = [Measured(name, {"batch": 1}, metrics) for name in ("torch", subject)]
    record = ScenarioRecord("engines", "2026-11-23", MACHINE, {}, "torch", rows)
    return ResultFile("m", {"engines": record})


def test_a_share_is_compared_by_its_difference():
    full, less = (
        run_with("onnx", answered_share=Metric.of([share] * 5, "", "higher"))
        for share in (1.0, 0.87)
    )
    change = verdicts(full, less)["onnx", str({"batch": 1}), "answered_share"]
    assert (change.verdict, change.ratio) == ("worse", pytest.approx(0.87))
    little = run_with("onnx", answered_share=Metric.of([0.97] * 5, "", "higher"))
    assert {one.verdict for one in verdicts(full, little).values()} == {"same"}


def test_what_the_machine_reaches_is_told_and_not_judged():
    before, much, little = (
        run_with("GEMM peak fp32", gflop_per_s=Metric.of([rate] * 5, "GFLOP/s", "higher"))
        for rate in (100.0, 130.0, 110.0)
    )
    assert {name for name, *_ in verdicts(before, much)} == {"torch"}
    assert "engines: machine GEMM peak fp32: 100 → 130 GFLOP/s" in differences(before, much)
    assert differences(before, little) == []


def test_a_ratio_that_moved_within_noise_is_too_noisy():
    before = make_run(1, noise=0.001)
    shaken = make_run(2, noise=0.001)
    (row,) = [
        one for one in shaken.scenarios["engines"].measurements
        if one.subject == "onnx" and one.point == {"batch": 8}
    ]  # fmt: skip
    assert too_noisy(compare_files(before, shaken, Thresholds())) == ""
    base = shaken.scenarios["engines"].find("torch", {"batch": 8}).metrics["rows_per_s"].rounds
    factors = (3.0, 2.4, 2.5, 3.1, 2.6)
    rates = [factor * one for factor, one in zip(factors, base, strict=True)]
    row.metrics["rows_per_s"] = Metric.of(rates, "1/s", "higher")
    found = too_noisy(compare_files(before, shaken, Thresholds()))
    assert "ratios moved by more than 10%" in found


def test_what_failed_in_one_run_alone_is_told():
    before, after = run_with("onnx"), run_with("onnx")
    after.scenarios["engines"].details.update(failed=3, sent=100)
    assert any("3 of 100 requests failed" in line for line in differences(before, after))
