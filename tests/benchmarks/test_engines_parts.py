"""Engines' parts: FLOPs, rows, differences, what is left out, rounds, torch without padding."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.progress import Progress

from multitask_benchmarks.engines import bench as bench_module
from multitask_benchmarks.engines import catalogue, memory, points, scenario, torch_runner
from multitask_benchmarks.engines.bench import Bench, Sample, Warm
from multitask_benchmarks.engines.catalogue import COMPILED, CUDA, FLASH, TENSORRT, TORCH, Subject
from multitask_benchmarks.engines.clock import Rounds
from multitask_benchmarks.engines.differences import Difference
from multitask_benchmarks.engines.flops import ModelShape, count_flops, shape_of
from multitask_benchmarks.engines.gemms import Gemms
from multitask_benchmarks.engines.points import Point, Work
from multitask_benchmarks.engines.runners import Job, Source
from multitask_benchmarks.engines.survey import Cell, Pace, Survey, Surveyor, fit
from multitask_core.artifact import Artifact
from multitask_core.errors import ConfigError, ParityError
from multitask_core.session import OnnxEncoder
from multitask_core.signature import CLASS_LOGITS, TOKEN_LOGITS, graph_signature
from multitask_train import checkpoint
from tiny import SENTENCES

SHAPE = ModelShape(
    hidden=8, layers=2, classes=3, tags=5, products=((8, 8, 8), (8, 16, 4)), positions=64
)


@pytest.fixture
def encoder(tiny_artifact):
    return Artifact.open(tiny_artifact).text_encoder()


@pytest.fixture
def source(tiny_checkpoint, tiny_artifact):
    return Source(tiny_checkpoint, tiny_artifact, threads=1)


@pytest.mark.parametrize("length", [1, 16, 64])
def test_the_formula_is_what_torch_counts(tiny_checkpoint, length) -> None:
    model, _ = checkpoint.load(tiny_checkpoint)
    shape = shape_of(model.config)
    assert shape.flops([length]) == count_flops(model, length)
    assert shape.flops([length, 3]) == count_flops(model, length) + count_flops(model, 3)
    assert (shape.hidden, shape.layers, shape.positions) == (32, 2, 64)


def test_the_formula_of_bert_base() -> None:
    """BERT-base has 85 M matrix weights: 22.5 GFLOP for 128 pieces, as is published."""
    products = ((768, 768, 48), (768, 3072, 12), (3072, 768, 12))
    shape = ModelShape(768, 12, classes=2, tags=3, products=products, positions=512)
    assert shape.weights == 84_934_656
    assert shape.flops([128]) == pytest.approx(22.35e9, rel=0.01)


def test_a_grid_has_valid_rows_of_one_length(encoder) -> None:
    works = points.grid(encoder, [4, 1], [16, 8])
    assert [str(one.point) for one in works] == ["1 × 8", "1 × 16", "4 × 8", "4 × 16"]
    for work in works:
        for rows in work.batches:
            assert {len(row) for row in rows} == {work.point.length}
            assert len(rows) == work.point.batch
            assert all((row[0], row[-1]) == (2, 3) for row in rows)
            assert all(4 <= piece < encoder.vocabulary_size or piece == 1
                       for row in rows for piece in row[1:-1])  # fmt: skip
    again = points.grid(encoder, [4, 1], [16, 8])
    assert [one.batches for one in again] == [one.batches for one in works]
    assert works[0].batches[0] != works[0].batches[1]


def test_long_tailed_rows_are_whole_rows(encoder) -> None:
    rows = points.make_rows(encoder, SENTENCES, 300, "long-tail")
    lengths = np.array([len(row) for row in rows])
    assert len(rows) == 300
    assert all(row[0] == 2 and row[-1] == 3 for row in rows)
    assert np.median(lengths) == pytest.approx(16, abs=3)
    assert lengths.max() == 32
    with pytest.raises(ConfigError, match="no word piece"):
        points.make_rows(encoder, [], 3, "long-tail")


def test_batches_of_real_rows_keep_their_order(encoder) -> None:
    rows = points.make_rows(encoder, SENTENCES, 6, "data")
    (work,) = points.spread(rows, [4], "data")
    assert [row for batch in work.batches for row in batch] == rows[:4]
    (wide,) = points.spread(rows, [8], "data")
    assert list(wide.batches[0]) == [*rows, *rows[:2]]
    facts = points.length_facts([[1] * 2, [1] * 4], [2])
    assert facts["padding_share"] == {"2": 0.25}


def test_mixes_hold_the_hard_cases(encoder) -> None:
    lengths = [[len(row) for row in rows] for rows in points.mixes(encoder, 32)]
    assert lengths[:3] == [[1], [32], [1, 32, 2]]
    assert len(set(lengths[3])) > 8


def logits(*values):
    return [(np.array(label, np.float32), np.array(tags, np.float32)) for label, tags in values]


def test_differences_are_counted() -> None:
    expected = logits(([1, 2], [[1, 2], [3, 1]]), ([5, 1], [[0, 1]]))
    found = logits(([3, 2], [[1, 2], [3, 1]]), ([5, 1], [[1, 0]]))
    difference = Difference()
    assert difference.add(found, expected) == ""
    assert (difference.largest, difference.label_share) == (2, 0.5)
    assert difference.tag_share == pytest.approx(2 / 3)
    assert difference.relative == pytest.approx(np.sqrt(6 / 47))
    assert "a logit differs by 2.0e+00, in fp32 at most 0.001 may" in difference.fault("fp32")
    assert "in bf16 at most 0.5 may" in difference.fault("bf16")
    assert difference.fault("int8") == ""


def test_nonsense_is_called_so_in_every_precision() -> None:
    expected = logits(([1, 2], [[1, 2]]))
    for wrong in (([2, -1], [[-2, 1]]), ([np.nan, 2], [[1, 2]]), ([np.inf, 2], [[1, 2]])):
        for precision in ("fp32", "fp16", "bf16", "int8"):
            difference = Difference()
            difference.add(logits(wrong), expected)
            assert difference.fault(precision)
    assert Difference(largest=float("inf")).to_dict()["largest"] == "not finite"
    assert "shapes" in Difference().add(logits(([1], [[1, 2]])), expected)


class Scripted:
    """An engine whose calls take as long as it says; it notes what it was asked."""

    def __init__(self, seconds_a_slot, offset=0.0, fails=()):
        self.seconds_a_slot, self.offset, self.fails = seconds_a_slot, offset, fails
        self.asked, self.pairs = [], 1

    def ready(self):
        pass

    def open(self):
        raise AssertionError("it is open")

    def close(self):
        pass

    def logits(self, rows):
        if "logits" in self.fails:
            raise ConfigError("it takes no such rows")
        return logits(*(([self.offset, 1], [[self.offset, 1]]) for _ in rows))

    def warm(self, key, batches, longest_s):
        self.asked.append(("warm", key))
        if key in self.fails:
            raise ConfigError("out of memory")
        slots = tuple(len(rows) * max(map(len, rows)) for rows in batches)
        call_s = slots[0] * self.seconds_a_slot
        whole = call_s * len(slots) if call_s <= longest_s else None
        return Warm(2 * call_s, call_s, whole, slots, self.logits(batches[0]), 50.0, 7.0)

    def measure(self, key, seconds):
        self.asked.append(("measure", key))
        if ("measure", key) in self.fails:
            raise ConfigError("the device is lost")
        return Sample(2, 0.5, 0.8, [100.0, 150.0] * self.pairs)


def work(batch, length):
    return Work(Point(batch, length), ([[1] * length] * batch,))


class Clockwork:
    """A runner on a clock of its own: compiles for a minute, then computes a piece in a second."""

    def __init__(self, *_):
        self.now_s, self.facts, self.jobs = 0.0, {}, []

    def prepare(self, rows):
        return Job(rows, sum(map(len, rows)), ())

    def run(self, job):
        self.now_s += job.slots + (0 if self.jobs else 60)
        self.jobs.append(job)

    def logits(self, job, outputs):
        return logits(*(([1, 2], [[1, 2]]) for _ in job.rows))


@pytest.fixture
def clockwork(monkeypatch):
    runner = Clockwork()
    clock = SimpleNamespace(
        perf_counter=lambda: runner.now_s, process_time=lambda: 2 * runner.now_s
    )
    monkeypatch.setattr(bench_module, "time", clock)
    monkeypatch.setattr(bench_module, "find_runner", lambda *_: lambda *_: runner)
    return runner


def test_compiling_does_not_make_a_call_too_long(clockwork) -> None:
    bench = Bench(REFERENCE, Source(Path("none")))
    bench.open()
    warm = bench.warm("point", [[[1, 2]], [[1, 2, 3]]], 5.0)
    assert (warm.first_s, warm.call_s, warm.pass_s) == (62, 2, 5)
    assert (warm.slots, len(warm.logits)) == ((2, 3), 1)
    assert (warm.peak_mib > 10, warm.device_mib) == (True, 0)
    assert len(clockwork.jobs) == 3
    assert bench.warm("long", [[[1] * 6], [[1]]], 5.0).pass_s is None
    assert len(clockwork.jobs) == 5


def test_a_round_is_whole_passes(clockwork) -> None:
    bench = Bench(REFERENCE, Source(Path("none")))
    bench.open()
    bench.warm("point", [[[1, 2]], [[1, 2, 3]]], 5.0)
    sample = bench.measure("point", 6.0)
    assert (sample.passes, sample.seconds, sample.cpu_s) == (2, 10, 20)
    assert sample.latencies_ms == [2000, 3000, 2000, 3000]


REFERENCE, OTHER = Subject(TORCH, "fp32"), Subject(TORCH, "bf16")
COMPILING = Subject(TORCH, "fp32", mode=COMPILED)


def test_what_takes_too_long_is_not_called() -> None:
    slow, fast = Scripted(0.1), Scripted(0.001)
    surveyor = Surveyor({REFERENCE: fast, OTHER: slow}, 1.0, allow_different=False)
    for one in (work(1, 4), work(1, 20), work(4, 20), work(64, 20)):
        surveyor.visit(one, [REFERENCE, OTHER])
    # 0.4 s is let be, 2 s is expected and not called.
    assert slow.asked == [("warm", "1 × 4")]
    assert [(one.subject, one.point) for one in surveyor.found.skipped] == [
        ("torch bf16", "1 × 20"),
        ("torch bf16", "4 × 20"),
        ("torch fp32", "64 × 20"),
        ("", "64 × 20"),
    ]
    reason = surveyor.found.skipped[0].reason
    assert reason == "a call would take about 2 s, --longest-call is 1"
    assert [cell.subject.name for cell in surveyor.found.cells] == [
        *("torch fp32", "torch bf16"),
        *("torch fp32", "torch fp32"),
    ]


def test_engines_may_come_to_a_point_later() -> None:
    reference, other = Scripted(0.001), Scripted(0.001)
    surveyor = Surveyor({REFERENCE: reference, OTHER: other}, 1.0, allow_different=False)
    surveyor.visit(work(1, 4), [REFERENCE])
    surveyor.visit(work(1, 4), [OTHER])
    surveyor.leave_out(work(2, 4), [OTHER], "no time")
    assert reference.asked == other.asked == [("warm", "1 × 4")]
    assert [cell.subject for cell in surveyor.found.cells] == [REFERENCE, OTHER]
    assert surveyor.found.skipped[0].subject == "torch bf16"


def test_a_call_found_too_long_is_not_repeated() -> None:
    slow = Scripted(1.0)
    surveyor = Surveyor({REFERENCE: Scripted(0.001), OTHER: slow}, 1.0, allow_different=False)
    surveyor.visit(work(1, 4), [OTHER])
    (skip,) = surveyor.found.skipped
    assert skip.reason == "a call takes about 4 s, --longest-call is 1"


def test_an_engine_that_fails_at_a_point_is_left_out_there() -> None:
    engines = {REFERENCE: Scripted(0.001), OTHER: Scripted(0.001, fails=("1 × 4",))}
    surveyor = Surveyor(engines, 1.0, allow_different=False)
    surveyor.visit(work(1, 4), [OTHER])
    surveyor.visit(work(2, 4), [OTHER])
    assert [one.reason for one in surveyor.found.skipped] == ["out of memory"]
    assert len(surveyor.found.cells) == 3


def test_an_engine_that_cannot_take_a_mix_is_noted() -> None:
    engines = {REFERENCE: Scripted(0.1), OTHER: Scripted(0.1, fails=("logits",))}
    surveyor = Surveyor(engines, 1.0, allow_different=False)
    surveyor.compare([[[1]], [[1, 2]]], [REFERENCE, OTHER])
    assert surveyor.found.details()["failed_checks"] == {"torch bf16": "it takes no such rows"}


def test_another_models_logits_are_refused() -> None:
    """The engine is dropped, where it was warm already too; the others go on."""
    third = Subject(TORCH, "fp16")
    wrong = Scripted(0.001)
    engines = {REFERENCE: Scripted(0.001), OTHER: wrong, third: Scripted(0.001)}
    surveyor = Surveyor(engines, 1.0, allow_different=False)
    surveyor.visit(work(1, 4), [*engines])
    wrong.offset = 3.0
    for one in (work(2, 4), work(4, 4)):
        surveyor.visit(one, [*engines])
    surveyor.leave_out(work(8, 4), [*engines], "no time")
    found = surveyor.found
    assert {cell.subject for cell in found.cells} == {REFERENCE, third}
    assert wrong.asked == [("warm", "1 × 4"), ("warm", "2 × 4")]
    assert (
        "does not compute torch fp32's model: a logit" in found.details()["refused"]["torch bf16"]
    )
    assert [one.subject for one in found.skipped] == ["torch fp32", "torch fp16"]
    surveyor.require_others()


def test_a_mix_may_refuse_an_engine_too() -> None:
    engines = {REFERENCE: Scripted(0.001), OTHER: Scripted(0.001, offset=3.0)}
    surveyor = Surveyor(engines, 1.0, allow_different=False)
    surveyor.compare([[[1]], [[1, 2]]], [REFERENCE, OTHER])
    surveyor.visit(work(1, 4), [REFERENCE, OTHER])
    assert engines[OTHER].asked == []
    with pytest.raises(ParityError, match="torch bf16 does not compute torch fp32's model"):
        surveyor.require_others()
    lenient = Surveyor(engines, 1.0, allow_different=True)
    lenient.visit(work(1, 4), [OTHER])
    lenient.require_others()
    assert lenient.found.differences["torch bf16"].largest == 3


def cells(*pass_s, subject=REFERENCE):
    warm = [Warm(one, one, one, (4,), []) for one in pass_s]
    return [Cell(subject, work(1, 4 + number), one) for number, one in enumerate(warm)]


PACE = Pace(rounds=5, seconds=0.5, peak_s=0.1)


def test_the_budget_drops_the_dearest_points() -> None:
    found = Survey(cells(0.1, 3.0, 1.0))
    kept = fit(found, PACE, budget_s=10.0)
    assert [str(cell.work.point) for cell in kept] == ["1 × 4", "1 × 6"]
    (skip,) = found.skipped
    assert (skip.subject, skip.point) == ("", "1 × 5")
    assert "about 16 s" in skip.reason
    assert len(fit(Survey(cells(9.0)), PACE, budget_s=0.0)) == 1


def test_the_budget_drops_what_was_compiled_first() -> None:
    found = Survey([*cells(0.1, 3.0), *cells(0.1, 0.2, subject=COMPILING)])
    kept = fit(found, PACE, budget_s=22.0)
    assert [(cell.subject, str(cell.work.point)) for cell in kept] == [
        *((REFERENCE, "1 × 4"), (REFERENCE, "1 × 5")),
        (COMPILING, "1 × 4"),
    ]
    (skip,) = found.skipped
    assert (skip.subject, skip.point) == ("torch fp32 compiled", "1 × 5")


def test_rounds_take_whole_passes() -> None:
    # Two passes of 0.3 s fill half a second; both cells share a point and its peak.
    pair = [*cells(0.3), *cells(2.0, subject=COMPILING)]
    assert PACE.total_s(pair) == pytest.approx(5 * (0.6 + 2.0 + 0.1))


class Clock:
    """Settings on a clock of their own, which the engines move on."""

    def __init__(self, budget_s):
        self.spent_s, self.budget_s, self.rounds, self.seconds = 0.0, budget_s, 5, 0.5
        self.longest_call_s, self.allow_different, self.device = 60.0, False, "cpu"


class Ticking(Scripted):
    """Takes its time on the run's clock, and a compiler's before its first call."""

    def __init__(self, clock, seconds_a_slot, compiles_s=0.0):
        super().__init__(seconds_a_slot)
        self.clock, self.compiles_s = clock, compiles_s

    def logits(self, rows):
        self.asked.append(("logits", len(rows)))
        return super().logits(rows)

    def warm(self, key, batches, longest_s):
        self.clock.spent_s += self.compiles_s
        self.compiles_s = 0.0
        warm = super().warm(key, batches, longest_s)
        self.clock.spent_s += 2 * warm.call_s
        return warm


def survey(budget_s, opened_s=0.0):
    """Warm an engine that computes a slot in 0.1 s and one that is compiled for 20 s before."""
    clock = Clock(budget_s)
    clock.spent_s = opened_s
    engines = {REFERENCE: Ticking(clock, 0.1), COMPILING: Ticking(clock, 0.1, compiles_s=20.0)}
    works = [work(1, length) for length in (4, 8, 16, 32)]
    plan = SimpleNamespace(works=works, mixes=[[[1]], [[1, 2]]])
    found = scenario._survey(clock, plan, scenario.Engines(Peak(), engines), Progress(disable=True))
    return engines, found, clock


def test_compilers_run_after_everything_else_is_warm() -> None:
    engines, found, _ = survey(budget_s=1000.0)
    assert [cell.subject for cell in found.cells] == [REFERENCE] * 4 + [COMPILING] * 4
    # Its answers are compared where it is measured, and for no further shape.
    assert [what for what, _ in engines[COMPILING].asked] == ["warm", "logits"] * 4


def test_nothing_is_compiled_late() -> None:
    # Warm-ups take 12 s and rounds 38 s: all fit, but 62 s are spent when it comes to compiling.
    engines, found, clock = survey(budget_s=101.0, opened_s=50.0)
    assert clock.spent_s == pytest.approx(62.0)
    assert engines[COMPILING].asked == []
    assert {one.subject for one in found.skipped} == {"torch fp32 compiled"}
    assert "60% of --budget was spent" in found.skipped[0].reason


def test_no_point_is_warmed_whose_rounds_do_not_fit() -> None:
    # Five rounds take 5.25 s at each of the first two points; the third takes as long at least.
    engines, found, clock = survey(budget_s=17.0)
    assert [str(cell.work.point) for cell in found.cells] == ["1 × 4", "1 × 8"]
    assert [key for what, key in engines[REFERENCE].asked if what == "warm"] == ["1 × 4", "1 × 8"]
    assert engines[COMPILING].asked == []  # nor is there time for a compiler
    assert {one.reason for one in found.skipped} == {
        "it would not fit into what the rounds of smaller points leave of --budget"
    }
    left = fit(found, scenario._pace(clock), clock.budget_s - clock.spent_s)
    assert left == found.cells


class Peak:
    def __init__(self):
        self.rounds = 0

    def rate(self, precision, seconds):
        self.rounds += 1
        if precision == "bf16":
            raise ConfigError("no such product")
        return 4.0 * self.rounds


def test_rounds_are_interleaved_and_utilisation_is_that_of_the_round() -> None:
    first, second = Scripted(0.001), Scripted(0.001)
    engines = {REFERENCE: first, OTHER: second}
    surveyor = Surveyor(engines, 1.0, allow_different=False)
    surveyor.visit(work(1, 4), [OTHER])
    surveyor.visit(work(2, 4), [OTHER])
    second.fails = (("measure", "2 × 4"),)
    rounds, steps = Rounds(surveyor.found.cells, engines, Peak()), []
    rounds.run(2, 0.1, 0.05, lambda: steps.append(1))
    assert len(steps) == 2 * rounds.steps
    assert first.asked[2:] == [("measure", point) for point in ("1 × 4", "2 × 4", "2 × 4", "1 × 4")]
    assert {(one.subject, one.point) for one in rounds.skipped} == {
        ("torch bf16", "2 × 4"),
        ("GEMM peak bf16", "1 × 4"),
        ("GEMM peak bf16", "2 × 4"),
    }
    measured = {(one.subject, one.point["batch"]): one for one in rounds.measured(SHAPE)}
    metrics = measured["torch fp32", 2].metrics
    gflop_per_s = 2 * SHAPE.flops([4, 4]) / 0.5 / 1e9
    assert metrics["gflop_per_s"].rounds == pytest.approx([gflop_per_s] * 2, rel=1e-5)
    assert metrics["rows_per_s"].median == 8
    assert metrics["cpu_ms_a_call"].median == 400
    assert metrics["peak_mib"].rounds == (50,)
    assert not {"p95_ms", "p99_ms", "device_mib"} & {*metrics}  # of two calls, on a CPU
    peaks = measured["GEMM peak fp32", 2].metrics["gflop_per_s"].rounds
    assert metrics["utilisation"].rounds == pytest.approx(
        [gflop_per_s / peak for peak in peaks], rel=1e-5
    )
    assert "utilisation" not in measured["torch bf16", 1].metrics
    assert ("torch bf16", 2) not in measured
    assert "gflop_per_s" not in rounds.measured(None)[0].metrics


def test_percentiles_of_few_calls_are_left_out() -> None:
    engines = {REFERENCE: Scripted(0.001), OTHER: Scripted(0.001)}
    engines[OTHER].pairs = 30
    surveyor = Surveyor(engines, 1.0, allow_different=False)
    surveyor.visit(work(1, 4), [OTHER])
    rounds = Rounds(surveyor.found.cells, engines, Peak())
    rounds.run(2, 0.1, 0.05, lambda: None)
    measured = {one.subject: one.metrics for one in rounds.measured(None)}
    assert "p95_ms" not in measured["torch fp32"]
    assert measured["torch bf16"]["p95_ms"].median == 150
    assert "p99_ms" not in measured["torch bf16"]
    engines[OTHER].pairs = 50
    rounds.run(1, 0.1, 0.05, lambda: None)  # one round of three had a hundred calls
    assert "p99_ms" not in {one.subject: one.metrics for one in rounds.measured(None)}["torch bf16"]


def test_the_peak_is_measured_in_every_precision() -> None:
    gemms = Gemms(SHAPE, "cpu", SimpleNamespace(cpus=1))
    assert all(gemms.rate(precision, 0.01) > 0 for precision in ("fp32", "bf16", "int8"))


def test_peak_memory_is_forgotten() -> None:
    held = mmap.mmap(-1, 64 << 20)  # malloc may keep what is freed: other tests tell it to
    np.frombuffer(held, np.uint8)[:] = 1
    before = memory.peak_mib()
    held.close()
    memory.forget_peak()
    after = memory.peak_mib()
    assert 10 < after < before - 32


def by_row(query, key, value, ends, longest):
    """What the flash kernel computes, row after row."""
    assert int((ends[1:] - ends[:-1]).max()) == longest
    parts = []
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        row = (one[None, start:end].transpose(1, 2) for one in (query, key, value))
        parts.append(torch.nn.functional.scaled_dot_product_attention(*row)[0].transpose(0, 1))
    return torch.cat(parts)


def test_torch_without_padding_answers_like_torch_with_it(source, encoder) -> None:
    from multitask_benchmarks.engines.torch_runner import load_model
    from multitask_benchmarks.engines.unpadded import UnpaddedRunner

    reference = Bench(catalogue.reference("cpu"), source)
    reference.open()
    runner = UnpaddedRunner(load_model(Subject(TORCH, "fp32"), source), "cpu", by_row)
    for rows in points.mixes(encoder, 32):
        job = runner.prepare(rows)
        assert job.slots == sum(map(len, rows))
        difference = Difference()
        assert not difference.add(runner.logits(job, runner.run(job)), reference.logits(rows))
        assert difference.largest < 1e-4


@pytest.mark.parametrize("lengths", [(5, 5, 5), (5, 4, 3)])
def test_what_is_compiled_leaves_out_a_mask_that_hides_nothing(
    source, encoder, monkeypatch, lengths
) -> None:
    """A dense mask would keep attention from the flash kernel; `compile` stands for itself here."""
    taken = []

    def compiled(forward, source):
        def run(*inputs):
            taken.append(len(inputs))
            return forward(*inputs)

        return run

    monkeypatch.setattr(torch_runner, "_compiled", compiled)
    benches = [Bench(one, source) for one in (catalogue.reference("cpu"), COMPILING)]
    facts = [one.open() for one in benches]
    assert facts[1]["mask"] == "none where rows have one length"
    rows = [points.grid(encoder, [1], [length])[0].batches[0][0] for length in lengths]
    expected, found = (one.logits(rows) for one in benches)
    difference = Difference()
    assert not difference.add(found, expected)
    assert difference.largest < 1e-5
    assert taken == [1 if len(set(lengths)) == 1 else 2]


def test_torch_without_padding_is_for_bert(source) -> None:
    from multitask_benchmarks.engines.unpadded import UnpaddedRunner

    other = SimpleNamespace(encoder=SimpleNamespace(config=SimpleNamespace(model_type="mpnet")))
    with pytest.raises(ConfigError, match="BERT encoders alone"):
        UnpaddedRunner(other, "cpu")


def test_flash_alone_takes_rows_of_one_length(source) -> None:
    bench = Bench(Subject(TORCH, "fp32", mode=FLASH), source)
    bench.open()
    expected = Bench(catalogue.reference("cpu"), source)
    expected.open()
    rows = [[2, 7, 3], [2, 8, 3]]
    difference = Difference()
    difference.add(bench.logits(rows), expected.logits(rows))
    assert difference.largest < 1e-4
    with pytest.raises(ConfigError, match="takes no mask"):
        bench.logits([[2, 7, 3], [2, 3]])


def test_what_the_gpu_providers_are_told() -> None:
    from multitask_benchmarks.engines.cuda_runner import provider_options

    source = Source(SimpleNamespace(), longest=384, most_rows=128)
    subject = Subject(CUDA, "fp32", "cuda", "fp32-fused")
    assert provider_options(subject, source, "padded")["use_tf32"] == "0"
    told = provider_options(Subject(TENSORRT, "fp16", "cuda", "fp16"), source, "padded")
    assert told["trt_fp16_enable"] == "1"
    assert told["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert told["trt_profile_opt_shapes"] == "input_ids:32x128,attention_mask:32x128"
    assert told["trt_profile_max_shapes"] == "input_ids:128x384,attention_mask:128x384"
    packed = provider_options(Subject(TENSORRT, "fp16", "cuda", "fp16-packed"), source, "packed")
    assert packed["trt_profile_max_shapes"] == "input_ids:49152,lengths:128x1,longest:384"


def test_engines_of_tensorrt_are_kept_apart_by_weights(tmp_path, monkeypatch) -> None:
    from multitask_benchmarks.engines.cuda_runner import cache_options

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = cache_options("a" * 64), cache_options("b" * 64)
    assert one["trt_engine_cache_enable"] == one["trt_timing_cache_enable"] == "1"
    assert one["trt_engine_cache_path"] != other["trt_engine_cache_path"]
    assert one["trt_timing_cache_path"] == other["trt_timing_cache_path"]
    assert all(Path(each["trt_engine_cache_path"]).is_dir() for each in (one, other))
    assert cache_options("a" * 64) == one
    assert str(tmp_path) in one["trt_timing_cache_path"]


@pytest.mark.parametrize("variant", ["fp32-fused", "fp32-packed"])
def test_a_bound_graph_answers_for_its_batch(source, encoder, variant) -> None:
    """What the GPU's runner binds once and runs often, here on the CPU's provider."""
    import onnxruntime

    from multitask_benchmarks.engines.cuda_runner import BoundGraph

    artifact = Artifact.open(source.artifact)
    graph = OnnxEncoder(artifact.graph(variant), artifact.schema)
    session = onnxruntime.InferenceSession(
        artifact.graph(variant), providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in graph_signature(artifact.schema, graph.layout).inputs]
    bound = []
    for seed in (2, 3):
        rows = points.mixes(encoder, 32)[seed]
        expected = graph.run(*(inputs := graph.prepare(rows)))
        tensors = {name: torch.from_numpy(one) for name, one in zip(names, inputs, strict=True)}
        shapes = {CLASS_LOGITS: expected[0].shape, TOKEN_LOGITS: expected[1].shape}
        bound.append((BoundGraph(session, tensors, shapes, "cpu"), expected))
    for one, expected in (*bound, *bound):
        for place in one.outputs:
            place.zero_()
        one.run()
        for found, wanted in zip(one.outputs, expected, strict=True):
            np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
