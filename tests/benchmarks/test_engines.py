"""The model alone on every engine: the command from its options to the result file, and faults."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import torch

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.engines import catalogue, scenario
from multitask_benchmarks.engines.bench import Bench
from multitask_benchmarks.engines.gemms import Gemms
from multitask_benchmarks.engines.process import EngineError, Process, RemoteBench
from multitask_benchmarks.engines.runners import Source
from multitask_benchmarks.results import read_results
from multitask_core.engines import OPENVINO_BF16, engine_fault
from multitask_core.errors import ConfigError
from tiny import SENTENCES

SHORT = ("--rounds", "2", "--seconds", "0.02", "--threads", "1", "--device", "cpu")
UNCOMPILED = ("torch fp32", "torch bf16", "*onnxruntime", "*openvino*")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps({"text": one, "label": "music", "entities": []}) for one in SENTENCES]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def bench(tiny_checkpoint, tiny_artifact, tmp_path, monkeypatch):
    """Run the command with its engines in this process, which starts no other; its record."""
    monkeypatch.setattr(scenario, "open_bench", Bench)
    monkeypatch.setattr(scenario, "open_peaks", Gemms)

    def bench(*arguments: str, subjects: tuple[str, ...] = ("torch fp32",), scenario="engines"):
        folders = ["--checkpoint", str(tiny_checkpoint), "--artifact", str(tiny_artifact)]
        given = [*folders, *SHORT, "--output", str(tmp_path / "out"), "--name", "tiny"]
        assert main(["engines", *given, "--subjects", *subjects, *arguments]) == 0
        (path,) = (tmp_path / "out").iterdir()
        return read_results(path).scenarios[scenario]

    return bench


def test_every_engine_at_every_point(bench, capsys) -> None:
    record = bench("--batch", "1", "3", "--length", "8", "16", subjects=UNCOMPILED)
    expected = {"torch fp32", "torch bf16", "fp32 on openvino", "fp32-packed on openvino"}
    expected |= {f"{one} on onnxruntime" for one in ("fp32", "fp32-fused", "fp32-packed")}
    if not engine_fault(OPENVINO_BF16):
        expected |= {"fp32 on openvino-bf16", "fp32-packed on openvino-bf16"}
    measured = {one.subject for one in record.measurements if "rows_per_s" in one.metrics}
    assert measured == expected
    assert "int8 on onnxruntime" in record.details["not_run"]
    points = [{"batch": batch, "length": length} for batch in (1, 3) for length in (8, 16)]
    for name in expected:
        for point in points:
            metrics = record.find(name, point).metrics
            counts = {key: len(one.rounds) for key, one in metrics.items()}
            assert counts.pop("peak_mib") == 1
            assert set(counts.values()) == {2}
            assert metrics["rows_per_s"].median > 0
            assert metrics["peak_mib"].median > 10
    assert record.baseline == "torch fp32"
    assert record.config["checkpoint_sha256"]
    said = capsys.readouterr().out
    assert "fp32-packed on openvino" in said
    brief = json.loads(said.splitlines()[-1])["result"]
    assert {one["subject"] for one in brief} >= expected


def test_figures_of_a_cell_agree_with_each_other(bench) -> None:
    record = bench("--batch", "4", "--length", "16", subjects=("torch fp32", "fp32 on onnx*"))
    (peak,) = [one for one in record.measurements if one.subject == "GEMM peak fp32"]
    for name in ("torch fp32", "fp32 on onnxruntime"):
        metrics = record.find(name, {"batch": 4, "length": 16}).metrics
        for number in range(2):
            one = {key: value.rounds[-1 if key == "peak_mib" else number]
                   for key, value in metrics.items()}  # fmt: skip
            assert one["tokens_per_s"] == pytest.approx(16 * one["rows_per_s"], rel=1e-4)
            shown = one["gflop_per_s"] / peak.metrics["gflop_per_s"].rounds[number]
            assert one["utilisation"] == pytest.approx(shown, rel=1e-4)
            assert one["padding_share"] == 0
    assert record.details["agreement"]["fp32 on onnxruntime"]["largest"] < 1e-3
    assert record.details["flops"]["fault"] == ""
    assert {one["subject"] for one in record.details["warm_up"]} == {
        "torch fp32",
        "fp32 on onnxruntime",
    }


def test_real_lengths_are_padded_by_padded_engines_alone(bench, data) -> None:
    record = bench(
        *("--lengths", "long-tail", "--data", str(data), "--rows", "24", "--batch", "8"),
        subjects=("torch fp32", "fp32 on onnx*", "fp32-packed on onnx*", "fp32-packed on openvino"),
        scenario="engines long-tail",
    )
    share = {
        one.subject: one.metrics["padding_share"].median
        for one in record.measurements
        if "padding_share" in one.metrics
    }
    assert share["fp32-packed on onnxruntime"] == 0
    assert 0 < share["torch fp32"] == share["fp32 on onnxruntime"]
    # OpenVINO's shapes are rounded up, by less than padding adds.
    assert 0 < share["fp32-packed on openvino"] < share["torch fp32"]
    assert share["torch fp32"] == pytest.approx(
        record.details["lengths"]["padding_share"]["8"], abs=2e-3
    )
    assert record.find("torch fp32", {"batch": 8, "lengths": "long-tail"})


def test_without_time_the_smallest_point_is_left(bench) -> None:
    record = bench("--batch", "1", "2", "--length", "8", "--budget", "1e-9")
    assert {one.point["batch"] for one in record.measurements} == {1}
    (skip,) = record.details["skipped"]
    assert (skip["point"], skip["subject"]) == ("2 × 8", "torch fp32")
    assert "100% of --budget was spent before its warm-up" in skip["reason"]


def test_nothing_left_to_measure_is_an_error(bench, tiny_checkpoint, tmp_path, capsys) -> None:
    given = ["--checkpoint", str(tiny_checkpoint), *SHORT, "--output", str(tmp_path / "none")]
    grid = ["--batch", "1", "--length", "8", "--subjects", "torch fp32"]
    assert main(["engines", *given, *grid, "--longest-call", "1e-9"]) == 1
    assert "nothing could be measured: 1 × 8: a call takes about" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--subjects", "tensorflow*"], "'tensorflow*' matches none of"),
        (["--lengths", "data"], "takes its rows from texts: give --data"),
        (["--data", "x.jsonl"], "--data is not read for the grid"),
        (["--batch", "0"], "--batch [0]: it must be above 0"),
        (["--seconds", "-1"], "--seconds -1.0: it must be above 0"),
        (["--threads", "-1"], "give 0 for all CPUs"),
        (["--length", "2"], "special tokens alone are 2 pieces"),
        (["--length", "999"], "the encoder takes at most 64 pieces"),
        (["--artifact", "nowhere"], "nowhere"),
        (["--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_faults_are_named(tiny_checkpoint, bench, tmp_path, capsys, arguments, said) -> None:
    given = ["--checkpoint", str(tiny_checkpoint), "--output", str(tmp_path / "none"), *SHORT]
    assert main(["engines", *given, *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_artifact_of_another_checkpoint_is_refused(
    bench, tiny_checkpoint, tiny_artifact, tmp_path, monkeypatch, capsys
) -> None:
    from multitask_core import manifest

    read = manifest.read
    monkeypatch.setattr(
        manifest, "read", lambda *given: read(*given).model_copy(update={"parent": "another"})
    )
    given = ["--checkpoint", str(tiny_checkpoint), "--artifact", str(tiny_artifact), *SHORT]
    assert main(["engines", *given, "--output", str(tmp_path / "none")]) == 1
    assert "was not exported from" in capsys.readouterr().err


def test_wrong_logits_are_not_timed(
    bench, tiny_checkpoint, tiny_artifact, tmp_path, monkeypatch, capsys
) -> None:
    class Broken(Bench):
        def logits(self, rows):
            found = super().logits(rows)
            if self._subject.variant == "fp32":
                found = [(label + 1, tags) for label, tags in found]
            return found

    monkeypatch.setattr(scenario, "open_bench", Broken)
    given = ["--checkpoint", str(tiny_checkpoint), "--artifact", str(tiny_artifact), *SHORT]
    small = ["--batch", "1", "--length", "8", "--subjects", "fp32 on onnx*"]
    one = [*given, *small, "--output", str(tmp_path / "none")]
    assert main(["engines", *one]) == 1
    said = capsys.readouterr().err
    assert (
        "fp32 on onnxruntime does not compute torch fp32's model: a logit differs by 1.0e+00"
        in said
    )
    assert not (tmp_path / "none").exists()
    both = ["--subjects", "fp32 on onnx*", "fp32-packed on onnx*"]
    assert main(["engines", *one, *both]) == 0
    assert "fp32 on onnxruntime" in capsys.readouterr().out.partition("Not measured")[2]
    (path,) = (tmp_path / "none").iterdir()
    record = read_results(path).scenarios["engines"]
    assert {*record.details["refused"]} == {"fp32 on onnxruntime"}
    subjects = {one.subject for one in record.measurements if "rows_per_s" in one.metrics}
    assert subjects == {"torch fp32", "fp32-packed on onnxruntime"}
    assert main(["engines", *one, "--allow-different"]) == 0
    (path,) = (tmp_path / "none").iterdir()
    agreement = read_results(path).scenarios["engines"].details["agreement"]
    assert agreement["fp32 on onnxruntime"]["largest"] == pytest.approx(1, abs=1e-3)


def test_an_engine_that_cannot_be_loaded_is_listed(bench, monkeypatch) -> None:
    class Unloadable(Bench):
        def open(self):
            if self._subject.variant:
                raise ConfigError("no such luck")
            return super().open()

    monkeypatch.setattr(scenario, "open_bench", Unloadable)
    record = bench("--batch", "1", "--length", "8", subjects=("fp32 on onnx*", "*cuda", "*int8*"))
    assert record.details["not_run"] == {
        "fp32 on onnxruntime": "no such luck",
        "fp32-fused on onnxruntime-cuda": "it runs on cuda, this run is on cpu",
        "fp16-fused on onnxruntime-cuda": "it runs on cuda, this run is on cpu",
        "fp16-packed on onnxruntime-cuda": "it runs on cuda, this run is on cpu",
        "int8 on onnxruntime": "the artifact has no variant int8; it has fp16, fp16-fused, fp32, "
        "fp32-fused, fp32-packed",
        "int8-packed on onnxruntime": "the artifact has no variant int8-packed; it has fp16, "
        "fp16-fused, fp32, fp32-fused, fp32-packed",
    }


def test_openvino_may_be_absent(tiny_artifact, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (subject,) = [one for one in catalogue.select(["fp32 on openvino"], "cpu")[0] if one.variant]
    assert "OpenVINO is not installed" in catalogue.fault(subject, {"fp32": "model.onnx"})
    assert "give --artifact" in catalogue.fault(subject, None)


def test_compiling_needs_a_compiler(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (_, compiled) = catalogue.select(["torch fp32 compiled"], "cpu")[0]
    assert "there is no no-such-compiler" in catalogue.fault(compiled, None)


def test_the_reference_is_always_measured() -> None:
    chosen, absent = catalogue.select(["fp32 on onnx*", "torch fp16*"], "cpu")
    assert [one.name for one in chosen] == ["torch fp32", "fp32 on onnxruntime"]
    assert set(absent) == {f"torch fp16{mode}" for mode in ("", " flash", " unpadded", " compiled")}
    names = [one.name for one in catalogue.select([], "cuda")[0]]
    assert names[0] == "torch fp32"
    assert {"torch fp16 flash", "fp16 on tensorrt", "fp16-packed on onnxruntime-cuda"} <= {*names}


def test_an_engine_in_a_process_of_its_own(tiny_checkpoint, tiny_artifact) -> None:
    (_, subject) = catalogue.select(["fp32-packed on onnx*"], "cpu")[0]
    source = Source(tiny_checkpoint, tiny_artifact, threads=1)
    here, there = Bench(subject, source), RemoteBench(subject, source)
    try:
        there.ready()
        assert there.open() == here.open()
        rows = [[2, 7, 8, 3], [2, 9, 3]]
        for mine, theirs in zip(here.logits(rows), there.logits(rows), strict=True):
            assert (mine[1] == theirs[1]).all()
        warm = there.warm("point", [rows, rows[:1]], 10.0)
        assert warm.slots == (7, 4)
        sample = there.measure("point", 0.01)
        assert len(sample.latencies_ms) == 2 * sample.passes
        assert sample.cpu_s > 0
        with pytest.raises(EngineError, match="KeyError: 'elsewhere'"):
            there.measure("elsewhere", 0.01)
        assert there.measure("point", 0.01).passes  # it goes on after a fault
    finally:
        there.close()


def test_the_end_of_a_process_is_an_error_not_a_hang() -> None:
    process = Process(os._exit, 9)  # as one ends that is killed for its memory
    for _ in range(2):
        with pytest.raises(EngineError, match="ended with code 9"):
            process.call("open")
    process.close()


def test_what_cannot_be_made_says_so_at_every_call() -> None:
    process = Process(int, "seven")
    for call in (process.ready, lambda: process.call("bit_length"), process.ready):
        with pytest.raises(EngineError, match="ValueError: invalid literal for int"):
            call()
    process.close()


def test_a_process_that_hangs_is_ended() -> None:
    process = Process(threading.Event)
    process.ready()
    with pytest.raises(EngineError, match="did not answer within 0 s"):
        process.call("wait", limit_s=0.1)
    with pytest.raises(EngineError, match="ended with code -9"):
        process.ready()
    process.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a C++ compiler works for most of it
def test_compiled_torch(bench) -> None:
    record = bench("--batch", "1", "3", "--length", "8", subjects=("torch fp32 compiled",))
    assert record.details["opened"]["torch fp32 compiled"]["compiled"] == "dynamic"
    found = record.find("torch fp32 compiled", {"batch": 3, "length": 8})
    assert found.metrics["rows_per_s"].median > 0
    (first, _) = [one for one in record.details["warm_up"] if "compiled" in one["subject"]]
    assert first["first_call_s"] > first["second_call_s"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_engine_of_a_gpu(tiny_checkpoint, tiny_artifact, tmp_path) -> None:
    given = ["--checkpoint", str(tiny_checkpoint), "--artifact", str(tiny_artifact)]
    short = ["--rounds", "2", "--seconds", "0.02", "--batch", "1", "8", "--length", "16", "32"]
    out = tmp_path / "out"
    assert main(["engines", *given, *short, "--device", "cuda", "--output", str(out)]) == 0
    (path,) = out.iterdir()
    record = read_results(path).scenarios["engines"]
    wanted = {"torch fp32", "torch fp16", "torch fp16 flash", "torch fp16 unpadded"}
    for name in wanted - set(record.details["not_run"]):
        metrics = record.find(name, {"batch": 8, "length": 32}).metrics
        assert metrics["device_mib"].median >= 0
    assert "torch fp16" not in record.details["not_run"]
