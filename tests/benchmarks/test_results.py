"""Result files: what is written comes back, scenarios stay apart, damage is named."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from multitask_benchmarks.results import (
    Measured,
    Metric,
    ScenarioRecord,
    read_results,
    result_path,
    write_scenario,
)
from multitask_core.errors import DataError


def make(values=(10.0, 11.0, 12.0), **changes):
    metrics = {"rows_per_s": Metric.of(values, "1/s", "higher")}
    one = Measured("fp32-packed on openvino-bf16", {"batch": 8, "length": "data"}, metrics)
    return ScenarioRecord.now("engines", {"rounds": 3}, measurements=[one], **changes)


def test_what_is_written_comes_back(tmp_path):
    record = make(baseline="torch", details={"agreement": {"texts": 3}})
    path = write_scenario(tmp_path, "My Model", "engines", record)
    assert path == result_path(tmp_path, "My Model", record)
    assert path.name.startswith("my-model_")
    found = read_results(path)
    assert (found.model, found.scenarios) == ("My Model", {"engines": record})
    assert found.scenarios["engines"].find("fp32-packed on openvino-bf16", {"batch": 8}) is None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_what_ran_on_the_cpu_is_filed_under_it(tmp_path):
    machine = {"cpu": "AMD EPYC", "cpus": 2, "gpus": ["NVIDIA L4, 570.1"]}
    records = [
        replace(make(), machine=machine, config={"device": device}) for device in ("cpu", "cuda")
    ]
    names = [result_path(tmp_path, "m", record).name.split("_")[1] for record in records]
    assert names == ["amd-epyc-2cpu", "nvidia-l4"]


def test_a_metric_says_what_its_rounds_say(tmp_path):
    metric = Metric.of([1 / 3, 0.4, 0.5], "", "lower")
    assert metric.rounds == (0.333333, 0.4, 0.5)
    assert metric.median == metric.estimate.median == 0.4
    assert (metric.low, metric.high) == (0.333333, 0.5)
    assert metric.noisy
    assert metric.estimate.noisy
    assert not Metric.of([1.0, 1.01], "ms").noisy


def test_the_shape_of_the_file(tmp_path):
    value = json.loads(write_scenario(tmp_path, "m", "engines", make()).read_text())
    assert list(value) == ["schema_version", "model", "scenarios"]
    scenario = value["scenarios"]["engines"]
    assert value["schema_version"] == 2
    assert set(scenario) == {
        "kind", "date", "machine", "config", "baseline", "measurements", "details"
    }  # fmt: skip
    (measured,) = scenario["measurements"]
    assert measured["point"] == {"batch": 8, "length": "data"}
    assert measured["metrics"]["rows_per_s"]["rounds"] == [10.0, 11.0, 12.0]


def test_a_scenario_replaces_its_own_and_keeps_the_others(tmp_path):
    write_scenario(tmp_path, "m", "b", make((1.0, 1.0)))
    write_scenario(tmp_path, "m", "a", make((2.0, 2.0)))
    path = write_scenario(tmp_path, "m", "b", make((3.0, 3.0)))
    found = read_results(path).scenarios
    assert list(found) == ["a", "b"]
    medians = [one.measurements[0].metrics["rows_per_s"].median for one in found.values()]
    assert medians == [2.0, 3.0]


def test_writers_at_once_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = set(
            pool.map(lambda n: write_scenario(tmp_path, "m", f"s{n:02}", make()), range(24))
        )
    (path,) = paths
    assert len(read_results(path).scenarios) == 24


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no result file"),
        ("[]", "is no result file"),
        ('{"schema_version": 1}', "schema_version 1, this version reads 2"),
        ('{"schema_version": 2, "model": "m"}', "damaged at scenarios"),
        (
            '{"schema_version": 2, "model": "m", "scenarios": {"a": {"kind": 1}}}',
            "damaged at scenarios.a.kind",
        ),
    ],
)
def test_a_damaged_file_is_named_and_kept(tmp_path, text, said):
    record = make()
    path = result_path(tmp_path, "m", record)
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        write_scenario(tmp_path, "m", "engines", record)
    assert path.read_text() == text
