"""The training benchmark: what it compares, refuses and reports."""

from dataclasses import replace
from pathlib import Path

import pytest

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.training.check import check, require_same
from multitask_benchmarks.training.command import make_job, results_table
from multitask_benchmarks.training.jobs import (
    GROUPED,
    OURS,
    TRAINER,
    Report,
    Work,
    read_report,
    write_report,
)
from multitask_benchmarks.training.measure import (
    Subject,
    all_subjects,
    measure,
    summarise,
)
from multitask_benchmarks.training.meter import Meter
from multitask_benchmarks.training.prepare import Material, equal_windows
from multitask_benchmarks.training.worker import without_dropout
from multitask_core.errors import MultiTaskError, ParityError
from multitask_train.data.features import IGNORED, Feature


def report(seconds: float = 2.0, tokens: int = 100, losses=(6.0, 5.5), norms=(3.0, 2.5)) -> Report:
    work = Work(10, tokens, 2 * tokens)
    return Report(seconds, 3.0, 500.0, work, list(losses), list(norms))


def agreeing(**changed) -> dict[Subject, list[Report]]:
    """A report of every side at precision no, some of them replaced."""
    return {
        Subject(side, "no", 1): changed.get(side.partition("-")[0], [report()])
        for side in (TRAINER, GROUPED, OURS)
    }


def options(**changed):
    values = {
        "batch_size": 32, "warmup": 4, "updates": 0, "threads": 2, "seed": 1, "max_length": 64,
    }  # fmt: skip
    return type("Options", (), {**values, **changed})


@pytest.fixture
def material(tmp_path: Path) -> Material:
    paths = [tmp_path / name for name in ("model", "features", "batch")]
    return Material(*paths, pad_id=0, parameters=5, lengths=[10] * 100)


def test_processes_share_batch_and_threads(material: Material, tmp_path: Path) -> None:
    one, two = (Subject(OURS, "bf16", count) for count in (1, 2))
    alone = make_job(one, material, options(), tmp_path, exact=False)
    shared = make_job(two, material, options(), tmp_path, exact=False)
    assert (alone.batch_size, alone.threads) == (32, 2)
    assert (shared.batch_size, shared.threads) == (16, 1)
    assert alone.updates == shared.updates == 4  # 100 windows in batches of 32
    exact = make_job(one, material, options(), tmp_path, exact=True)
    assert (exact.features, exact.warmup, exact.exact) == (str(material.batch), 0, True)
    scaled = make_job(replace(one, precision="fp16"), material, options(), tmp_path, exact=True)
    assert scaled.updates > exact.updates == 3


def test_every_other_round_runs_backwards() -> None:
    subjects = all_subjects(["no"], [1])
    seen: list[Subject] = []

    def train(subject: Subject) -> list[Report]:
        seen.append(subject)
        return [report()]

    measure(subjects, train, 2)
    assert seen == [*subjects, *reversed(subjects)]


def test_ratios_are_formed_within_a_round_and_a_group() -> None:
    seconds = {TRAINER: [2.0, 4.0, 8.0], GROUPED: [2.0, 4.0, 8.0], OURS: [1.0, 2.0, 4.0]}

    def train(subject: Subject) -> list[Report]:
        slower = subject.processes * (3 if subject.precision == "no" else 1)
        taken = seconds[subject.side][rounds[subject]] * slower
        rounds[subject] += 1
        return [report(taken)] * subject.processes

    subjects = all_subjects(["no", "bf16"], [1, 2])
    rounds = dict.fromkeys(subjects, 0)
    results = summarise(measure(subjects, train, 3))
    for result in results:
        speedup = {TRAINER: None, GROUPED: 1.0, OURS: 2.0}[result.cell.subject.side]
        assert (result.speedup.median if result.speedup else None) == speedup
        assert result.noisy == (speedup is None)  # the machine's drift cancels in a ratio
        assert result.padding.median == 0.5


def test_processes_of_a_run_are_added_up() -> None:
    (cell,) = measure(
        [Subject(TRAINER, "no", 2)], lambda _: [report(2.0, 100), report(2.5, 150)], 1
    )
    (found,) = cell.rounds
    assert found.seconds == 2.5
    assert found.tokens_per_s == 100
    assert (found.cpu_s, found.peak_mib, found.work) == (6.0, 1000.0, Work(20, 250, 500))


def test_equal_first_updates_pass() -> None:
    near = [report(losses=(6.0004, 5.5004))]
    found = require_same(agreeing(ours=near))
    assert [one["side"] for one in found] == [GROUPED, OURS]
    assert 0 < found[1]["differences"]["losses"] < 1e-4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (report(losses=(6.0, 5.6)), r"ours, precision no, 1 .*losses .* 1\.8e-02 .*5\.6 against"),
        (report(norms=(1.5, 2.5)), "gradient norms .* differ by 5.0e-01"),
        (report(losses=()), "losses .* differ by inf"),
        (report(losses=(6.0,)), "losses .* differ by inf"),
        (report(losses=(float("nan"), 5.5)), "losses .* differ by inf"),
        (report(norms=(float("inf"), 2.5)), "gradient norms .* differ by inf"),
        (report(losses=(6.0, 5.5, 5.0)), "losses .* differ by inf"),
    ],
)
def test_another_computation_is_not_timed(wrong: Report, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        require_same(agreeing(ours=[wrong]))


def scaled(*norms: float, losses=(6.0, 6.0, 6.0, 5.5, 5.0, 4.5)) -> list[Report]:
    return [report(losses=losses, norms=norms)]


def test_updates_that_fp16_skips_on_both_sides_are_the_same() -> None:
    inf, nan = float("inf"), float("nan")
    trainer, mine = (Subject(side, "fp16", 1) for side in (TRAINER, OURS))
    wanted = scaled(inf, nan, 3.0, 2.5, 2.0, 1.5)
    (found,) = require_same({trainer: wanted, mine: scaled(nan, inf, 3.0, 2.5, 2.0, 9.0)})
    assert found["differences"] == {"losses": 0, "gradient_norms": 0}  # up to the third finite one
    for norms, losses in (
        ((inf, 3.0, 3.0, 2.5, 2.0, 1.5), (6.0, 6.0, 6.0, 5.5, 5.0, 4.5)),  # skipped on one side
        ((inf, inf, 3.0, 2.5, 2.0, 1.5), (6.0, 6.0, 6.0, 5.5, 4.0, 4.5)),  # another loss
    ):
        with pytest.raises(ParityError, match="precision fp16"):
            require_same({trainer: wanted, mine: scaled(*norms, losses=losses)})
    few = scaled(inf, inf, inf, inf, inf, 1.5)
    with pytest.raises(ParityError, match="gradient norms .* differ by inf"):
        require_same({trainer: few, mine: few})


def test_a_group_that_fails_its_check_costs_no_other() -> None:
    def train(subject: Subject) -> list[Report]:
        if subject.precision == "fp16":
            raise MultiTaskError("ended with status 1\n/some/folder: no such device")
        wrong = subject.precision == "no" and subject.side == OURS
        return [report(losses=(6.0, 5.0 if wrong else 5.5))]

    subjects = all_subjects(["no", "fp16", "bf16"], [1])
    checked = check(subjects, train)
    assert {one.precision for one in checked.subjects} == {"bf16"}
    assert len(checked.agreement) == 2
    assert checked.refused["precision fp16, 1 process(es)"] == "ended with status 1"
    assert "do not compute the same" in checked.refused["precision no, 1 process(es)"]
    with pytest.raises(MultiTaskError, match="status 1"):
        check(all_subjects(["fp16"], [1]), train)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert main(["training", "--data", "nowhere", "--processes", "1", "2"]) == 1
    assert "--processes 2: each needs a GPU of its own, and torch sees 1" in capsys.readouterr().err


def test_memory_of_a_gpu_is_shown_where_there_is_one(render, material: Material) -> None:
    def train(device_mib: float):
        return lambda _: [replace(report(), device_mib=device_mib)] * 2

    subjects = all_subjects(["no"], [2])
    without, having = (summarise(measure(subjects, train(mib), 1)) for mib in (0.0, 512.0))
    assert "device_mib" not in without[0].measured().metrics
    assert having[0].measured().metrics["device_mib"].rounds == (1024,)
    assert "1,024" in render(results_table(having, material.facts))


def test_losses_of_processes_are_averaged() -> None:
    groups = {
        Subject(TRAINER, "no", 2): [report(), report()],
        Subject(OURS, "no", 2): [report(losses=(5.0, 5.0)), report(losses=(7.0, 6.0))],
    }
    (found,) = require_same(groups)
    assert found["losses"][OURS] == [6.0, 5.5]


def test_the_checks_windows_have_equally_many_labels() -> None:
    def window(pieces: int, tagged: int) -> Feature:
        return Feature([5] * pieces, 0, [1] * tagged + [IGNORED] * (pieces - tagged))

    features = [window(9, 3), window(7, 4), window(8, 4), window(5, 2)]
    chosen = equal_windows(features, 5)
    assert [len(one.input_ids) for one in chosen] == [7, 8, 7, 8, 7]


def test_no_dropout_is_left() -> None:
    config = {"hidden_dropout_prob": 0.1, "attention_dropout": 0.2, "classifier_dropout": None}
    assert without_dropout({**config, "layers": 2}) == {
        "hidden_dropout_prob": 0.0,
        "attention_dropout": 0.0,
        "classifier_dropout": None,
        "layers": 2,
    }


def test_the_meter_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(
        "multitask_benchmarks.training.meter._now", lambda: (next(clock), 2.0 * next(clock))
    )
    meter = Meter(warmup=2, updates=3)
    assert [meter.updated(number) for number in range(1, 6)] == [False] * 4 + [True]
    work = [Work(1, number, 10) for number in range(1, 7)]
    found = meter.report(work, [], [])
    assert (found.seconds, found.cpu_s) == (20, 40)
    assert found.work == Work(3, 3 + 4 + 5, 30)
    assert found.peak_mib > 1


def test_a_run_that_ends_early_has_no_report() -> None:
    meter = Meter(warmup=1, updates=2)
    meter.updated(1)
    with pytest.raises(AssertionError, match="before update 3"):
        meter.report([], [], [])


def test_reports_survive_their_file(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report())
    assert read_report(tmp_path / "r.json") == report()


def test_the_table_marks_noise_and_names_the_data(render, material: Material) -> None:
    rounds = iter([1.0, 1.0, 2.0, 1.0, 3.0, 3.0])  # the second round runs backwards
    results = summarise(
        measure(all_subjects(["no"], [1]), lambda _: [report(next(rounds), 7000)], 2)
    )
    text = render(results_table(results, material.facts))
    assert "Medians over 2 interleaved rounds [lowest, highest]" in text
    assert "ours ~" in text
    assert "trainer-grouped ~" not in text
    assert "50.0%" in text
    assert "100 windows of 10 tokens (median)" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "--rounds 0: it must be above 0"),
        (["--processes", "1", "0"], "--processes [1, 0]"),
        (["--updates", "-1"], "--updates -1"),
        (["--processes", "3"], "--batch-size 32 cannot be shared out evenly to 3"),
        ([], "there is no nowhere"),
    ],
)
def test_wrong_options_are_told(words: list[str], message: str, capsys) -> None:
    assert main(["training", "--data", "nowhere", *words]) == 1
    assert message in capsys.readouterr().err


def test_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["training", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "python -m multitask_benchmarks training --data" in out
    assert "trainer-grouped" in out


def test_subjects_stand_beside_those_they_are_compared_with() -> None:
    subjects = all_subjects(["no", "bf16"], [1, 2])
    assert len(set(subjects)) == 12
    assert [one.side for one in subjects[:3]] == [TRAINER, GROUPED, OURS]
    assert len({one.group for one in subjects[:3]}) == 1
    assert replace(subjects[0], side=OURS).group == subjects[0].group
