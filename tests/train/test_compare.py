"""`python -m multitask_train compare`: what it plans, counts and shows, and the whole of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from multitask_core.errors import ConfigError, DataError
from multitask_core.files import write_json
from multitask_train.comparison import report, results
from multitask_train.comparison.cells import JOINT, SINGLE, Cell, Run, make_cells, make_runs
from multitask_train.comparison.execution import held, tail
from multitask_train.comparison.figure import groups
from multitask_train.comparison.settings import (
    BALANCERS,
    STRATEGIES,
    CompareSettings,
    load_comparison,
)
from multitask_train.comparison.stats import COLUMNS, Summary, best_cells, summarise, tabulate
from multitask_train.data import Example, Span
from multitask_train.data.examples import write_jsonl

ROOT = Path(__file__).parents[2]
HEADS = Cell("heads", "equal")
ACCURACY = next(column for column in COLUMNS if column.key == "accuracy")
CALIBRATION = next(column for column in COLUMNS if "calibration" in column.key)


def compare(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multitask_train", "compare", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, cwd=cwd
    )


@pytest.fixture
def settings(tmp_path: Path, tiny_encoder: Path) -> Path:
    """A comparison of two strategies with one seed, on a corpus that can be learned."""
    examples = [
        Example(f"{form} {genre}", "music", (Span(len(form) + 1, len(form) + 5, "genre"),))
        for form in ("play", "some", "i want")
        for genre in ("jazz", "rock", "folk", "soul")
    ]
    examples += [Example(f"wake me at {hour}", "alarm", ()) for hour in range(9)]
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / "corpus" / f"{split}.jsonl", examples)
    base = {
        "model": {"encoder": str(tiny_encoder), "max_length": 32, "stride": 8, "dropout": 0.0},
        "data": {split: str(tmp_path / "corpus") for split in ("train", "dev", "test")},
        "optim": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "head_learning_rate": 5e-3},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(base))
    values = {
        "base": str(tmp_path / "fit.yaml"),
        "strategies": ["full", "heads"],
        "balancers": ["equal"],
        "seeds": [1],
        "jobs": 2,
        "threads": 1,
        "output": str(tmp_path / "compared"),
    }
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def metrics(accuracy: float | None, f1: float | None, *, calibration: float = 0.1) -> dict:
    """What `fit` would have measured, with one type's figures."""
    label = {"accuracy": accuracy, "macro_f1": accuracy, "calibration_error": calibration}
    types = {"genre": {"precision": f1, "recall": f1, "f1": f1, "support": 4}}
    ner = {"f1": f1, "precision": f1, "recall": f1, "token_accuracy": f1, "types": types}
    split = {
        "classification": None if accuracy is None else label,
        "ner": None if f1 is None else {**ner, "calibration_error": None},
        "joint": None,
        "examples": 4,
    }
    return {
        "epoch": 1,
        "dev": split,
        "test": split,
        "parameters": {"trained": 12_345, "total": 20_000},
        "train_seconds": 61.4,
    }


def finish(run: Run, **figures: Any) -> None:
    """Leave in a run's folder what a `fit` leaves there, and note the result."""
    for name in ("history.json", "settings.yaml", "model.safetensors", "manifest.json", "a.png"):
        (run.checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (run.checkpoint / name).write_text("{}")
    (run.checkpoint / "logs").mkdir(exist_ok=True)
    write_json(run.checkpoint / "metrics.json", metrics(**figures))
    results.harvest(run)


# Settings


def test_faults_are_told_at_once_with_the_nearest_name(settings: Path) -> None:
    words = ["--strategies", "[full, head]", "--balancer", "equal", "--seeds", "[]"]
    words += ["--fit.optim.epoch", "3", "--jobs", "0", "--balancers", "[equal, equal]"]
    with pytest.raises(ConfigError) as caught:
        load_comparison(settings, words)
    message = str(caught.value)
    assert "6 fault(s)" in message
    assert "strategies.1: unknown, did you mean 'heads'?; got 'head'" in message
    assert "balancer: unknown setting; did you mean 'balancers'?" in message
    assert "balancers: each may stand once" in message
    assert "fit.optim.epoch: unknown setting; did you mean 'epochs'?" in message
    assert "seeds: " in message
    assert "jobs: " in message


def test_what_the_comparison_sets_may_not_be_set_twice(settings: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 fault\(s\)") as caught:
        load_comparison(settings, ["--fit.run.seed", "3", "--fit.optim.strategy", "heads"])
    assert "fit.run.seed: the comparison sets it; name it in `seeds`" in str(caught.value)
    assert "fit.optim.strategy" in str(caught.value)


def test_a_base_for_one_task_is_refused(settings: Path, tmp_path: Path) -> None:
    base = tmp_path / "fit.yaml"
    values = yaml.safe_load(base.read_text())
    values["data"]["tasks"] = "ner"
    base.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="data.tasks trains one task alone"):
        load_comparison(settings)


def test_a_fault_of_the_base_names_the_base(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text("optim: {epoch: 3}")
    with pytest.raises(ConfigError, match=r"fit.yaml: 1 fault.*\n.*did you mean 'epochs'"):
        load_comparison(settings)


def test_fit_replaces_the_base_and_the_command_line_both(settings: Path) -> None:
    values = yaml.safe_load(settings.read_text())
    values["fit"] = {"optim": {"epochs": 7, "batch_size": 4}}
    settings.write_text(yaml.safe_dump(values))
    fit = load_comparison(settings, ["--fit.optim.batch_size", "2"]).fit
    assert (fit.optim.epochs, fit.optim.batch_size, fit.optim.learning_rate) == (7, 2, 2e-3)
    assert fit.model.max_length == 32


def test_the_shipped_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(Path("train/configs/compare-snips.yaml"))
    assert comparison.settings.strategies == STRATEGIES
    assert comparison.settings.balancers == BALANCERS
    assert comparison.fit.data.limit == 1000
    assert len(make_cells(comparison.settings)) * len(comparison.settings.seeds) == 45
    # `static` with equal weights would be `equal` once more.
    assert comparison.fit.loss.classification != comparison.fit.loss.ner


# Cells and runs


def test_baselines_are_always_there_and_nothing_twice() -> None:
    cells = make_cells(CompareSettings(strategies=("heads",), balancers=("famo", "rlw")))
    assert cells == [*SINGLE.values(), JOINT, Cell("heads", "famo"), Cell("heads", "rlw")]
    assert make_cells(CompareSettings(strategies=("full",), balancers=("equal",))) == cells[:3]


def test_all_pairs_only_when_asked() -> None:
    words = {"strategies": ("full", "heads"), "balancers": ("equal", "famo", "rlw")}
    some = make_cells(CompareSettings(**words))
    assert Cell("heads", "famo") not in some
    assert len(some) == 2 + 4
    assert len(make_cells(CompareSettings(**words, cross=True))) == 2 + 6


def test_a_run_has_the_settings_of_its_cell(settings: Path) -> None:
    runs = {run.name: run for run in make_runs(load_comparison(settings))}
    assert list(runs) == [
        "classification-alone seed 1",
        "ner-alone seed 1",
        "full+equal seed 1",
        "heads+equal seed 1",
    ]
    fit = runs["heads+equal seed 1"].settings
    assert (fit.optim.strategy, fit.loss.balancer, fit.data.tasks) == ("heads", "equal", "both")
    assert (fit.run.seed, fit.run.threads, fit.optim.epochs) == (1, 1, 2)
    assert runs["ner-alone seed 1"].settings.data.tasks == "ner"
    assert len({run.folder for run in runs.values()}) == len(runs)


def test_teachers_are_the_baselines_of_the_same_seed(settings: Path, tmp_path: Path) -> None:
    words = ["--teachers", "[classification, ner]", "--seeds", "[1, 2]"]
    runs = {one.name: one for one in make_runs(load_comparison(settings, words))}
    for seed in (1, 2):
        run = runs[f"full+equal+classification-teacher+ner-teacher seed {seed}"]
        baselines = [runs[f"{task}-alone seed {seed}"] for task in SINGLE]
        assert list(run.teachers) == baselines
        assert run.settings.loss.teachers == {
            one.cell.tasks: (str(one.checkpoint),) for one in baselines
        }
        assert all(one.kept for one in baselines)
        assert not run.kept
    moved = make_runs(load_comparison(settings, [*words, "--output", str(tmp_path / "moved")]))
    assert [one.identity for one in moved] == [one.identity for one in runs.values()]
    faster = make_runs(load_comparison(settings, [*words, "--fit.optim.learning_rate", "1e-3"]))
    assert not {one.identity for one in faster} & {one.identity for one in runs.values()}
    everyone = make_runs(load_comparison(settings, [*words, "--teacher_seeds", "all"]))
    assert [one.name for one in everyone[-2:]] == [
        f"full+equal+classification-teachers+ner-teachers seed {seed}" for seed in (1, 2)
    ]
    for run in everyone[-2:]:  # last, since all seeds' baselines come before
        assert run.settings.loss.teachers == {
            task: tuple(str(runs[f"{task}-alone seed {seed}"].checkpoint) for seed in (1, 2))
            for task in SINGLE
        }
    share = ["--fit.loss.teacher_share", "0.5"]
    for one in make_runs(load_comparison(settings, [*words, *share])):
        assert one.settings.loss.teacher_share == (0.5 if one.cell.taught else 0.0)
    with pytest.raises(ConfigError, match="teacher_share is 0.5, and no cell has a teacher; give"):
        load_comparison(settings, share)
    with pytest.raises(ConfigError, match="teacher_seeds all says whose .* give `teachers`"):
        load_comparison(settings, ["--teacher_seeds", "all"])
    single = [*words[:3], "1", "--teacher_seeds", "all"]
    names = [one.name for one in make_runs(load_comparison(settings, single))]
    assert "full+equal+classification-teacher+ner-teacher seed 1" in names
    static = [*words, "--balancers", "[static, equal]", "--fit.loss.ner", "2"]
    taught = [one for one in make_runs(load_comparison(settings, static)) if one.cell.taught]
    assert {one.cell.balancer for one in taught} == {"static"}  # the first, as for strategies
    assert {one.settings.loss.ner for one in taught} == {2.0}
    # Baselines of a comparison without teachers have dropped their weights: they are others.
    plain = make_runs(load_comparison(settings, ["--seeds", "[1, 2]"]))
    assert "full+equal+classification-teacher+ner-teacher seed 1" not in {one.name for one in plain}
    assert {one.name for one in plain if one.identity != runs[one.name].identity} == {
        f"{task}-alone seed {seed}" for task in SINGLE for seed in (1, 2)
    }


def test_a_single_task_is_not_chosen_by_the_other_ones_metric(settings: Path) -> None:
    comparison = load_comparison(settings, ["--fit.run.best_metric", "f1"])
    chosen = {run.cell.name: run.settings.run.best_metric for run in make_runs(comparison)}
    assert chosen == {
        "classification-alone": "mean",
        "ner-alone": "f1",
        "full+equal": "f1",
        "heads+equal": "f1",
    }


def test_identity_is_settings_and_data_and_not_the_place(
    settings: Path, tmp_path: Path, tiny_encoder: Path, tiny_checkpoint: Path
) -> None:
    def identities(*words: str) -> list[str]:
        return [run.identity for run in make_runs(load_comparison(settings, words))]

    first = identities()
    assert len(set(first)) == 4
    assert identities("--output", str(tmp_path / "elsewhere"), "--jobs", "1") == first
    assert not set(identities("--fit.optim.learning_rate", "1e-3")) & set(first)
    assert not set(identities("--seeds", "2")) & set(first)
    assert identities("--seeds", "[2, 1]")[4:] == first
    encoder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    same = identities("--fit.model.encoder", str(encoder))
    (encoder / "config.json").write_text((encoder / "config.json").read_text() + " ")
    assert not set(identities("--fit.model.encoder", str(encoder))) & set(same)
    begun = identities("--fit.model.start_from", str(tiny_checkpoint))
    assert not set(begun) & set(first)
    moved = shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    assert identities("--fit.model.start_from", str(moved)) == begun
    assert not set(identities("--fit.optim.ema_decay", "0.9")) & set(first)
    assert identities("--fit.optim.ema_decay", "0") == first
    with (tmp_path / "corpus" / "dev.jsonl").open("a") as stream:
        stream.write('{"text": "play blues", "label": "music", "entities": []}\n')
    assert not set(identities()) & set(first)


def test_a_missing_corpus_is_told_before_anything_runs(settings: Path, tmp_path: Path) -> None:
    comparison = load_comparison(settings, ["--fit.data.dev", "nowhere.jsonl"])
    with pytest.raises(DataError, match=r"there is no nowhere\.jsonl"):
        make_runs(comparison)


def test_a_result_is_only_read_for_its_own_settings(settings: Path) -> None:
    run = make_runs(load_comparison(settings))[2]
    assert run.state == "to do"
    finish(run, accuracy=0.5, f1=0.5)
    assert run.state == "done"
    value = json.loads(run.result_file.read_text())
    write_json(run.result_file, {**value, "identity": "another"})
    assert run.state == "begun"
    run.result_file.write_text("{")
    assert run.state == "begun"


def test_only_weights_are_dropped(settings: Path) -> None:
    run = make_runs(load_comparison(settings))[2]
    finish(run, accuracy=0.5, f1=0.5)
    for _ in range(2):
        results.drop_weights(run)
        left = sorted(path.name for path in run.checkpoint.iterdir())
        assert left == ["a.png", "history.json", "logs", "metrics.json", "settings.yaml"]
    assert run.state == "done"
    assert run.fitted


# Statistics


def test_mean_spread_and_paired_difference_by_hand() -> None:
    one = summarise({1: 0.9, 2: 0.8, 3: 0.7}, {1: 0.8, 2: 0.6, 3: 0.7})
    assert one is not None
    assert one.mean == pytest.approx(0.8)
    assert one.sd == pytest.approx(0.1)
    assert one.seeds == 3
    assert one.difference == pytest.approx(0.1)  # of 0.1, 0.2 and 0
    assert one.difference_sd == pytest.approx(0.1)


def test_differences_are_of_the_seeds_that_both_have() -> None:
    one = summarise({1: 0.9, 2: 0.5}, {2: 0.25, 3: 0.7})
    assert one == Summary(pytest.approx(0.7), pytest.approx(0.08**0.5), 2, 0.25, None)
    alone = summarise({1: 0.9}, {})
    assert alone == Summary(0.9, None, 1, None, None)
    assert summarise({}, {1: 0.5}) is None


@pytest.mark.parametrize(
    ("difference", "spread", "clear"),
    [(0.2, 0.1, True), (-0.2, 0.1, True), (0.1, 0.2, False), (0.2, None, False), (0, 0, False)],
)
def test_clear_is_larger_than_the_spread(difference, spread, clear) -> None:
    assert Summary(0.5, 0.1, 3, difference, spread).clear is clear


def test_the_best_is_marked_only_where_it_is_clear() -> None:
    def table(*, heads: tuple[float, float], calibration: float) -> Any:
        found = {
            JOINT: {seed: metrics(0.5, 0.5, calibration=0.2) for seed in (1, 2)},
            HEADS: {
                seed: metrics(value, 0.5, calibration=calibration + seed / 100)
                for seed, value in zip((1, 2), heads, strict=True)
            },
        }
        return tabulate(found, "test")

    clear = table(heads=(0.6, 0.7), calibration=0.1)
    assert best_cells(clear, ACCURACY) == {HEADS}
    assert best_cells(clear, CALIBRATION) == {HEADS}  # less is better
    noisy = table(heads=(0.4, 0.9), calibration=0.3)
    assert best_cells(noisy, ACCURACY) == set()
    assert best_cells(noisy, CALIBRATION) == set()  # the baseline is best
    seconds = next(column for column in COLUMNS if column.key == "train_seconds")
    assert best_cells(clear, seconds) == set()


# Report


@pytest.fixture
def finished(settings: Path) -> Path:
    """All runs of two seeds done but the last one."""
    runs = make_runs(load_comparison(settings, ["--seeds", "[1, 2]"]))
    tasks = {"classification": (0.9, None), "ner": (None, 0.8), "both": (0.92, 0.81)}
    for run in runs[:-1]:
        accuracy, f1 = tasks[run.cell.tasks]
        more = 0.04 * (run.cell == HEADS) + 0.01 * run.seed
        finish(run, accuracy=accuracy and accuracy + more, f1=f1 and f1 + more)
    return settings


def make(settings: Path) -> report.Report:
    comparison = load_comparison(settings, ["--seeds", "[1, 2]"])
    return report.make_report(comparison, make_runs(comparison), [])


def test_table_of_figures(finished: Path) -> None:
    made = make(finished)
    lines = report.format_table(made.table, 2).splitlines()
    assert len({len(line) for line in lines}) == 1
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == [
        "cell", "intent accuracy", "macro F1", "entity F1", "calibration error, intents",
        "trained parameters", "seconds",
    ]  # fmt: skip
    assert rows[2][:4] == ["intents alone", "91.50 ± 0.71 (-2.00)", "91.50 ± 0.71 (-2.00)", "–"]
    assert rows[4][:2] == ["full + equal (baseline)", "93.50 ± 0.71"]
    assert rows[4][-2:] == ["12,345", "61"]
    assert rows[5][:2] == ["heads + equal, 1 of 2 seeds", "97.00 (+4.00)"]


def test_files_of_the_report(finished: Path, tmp_path: Path) -> None:
    made = make(finished)
    report.write_report(made)
    output = tmp_path / "compared"
    assert (output / report.FIGURE).read_bytes().startswith(b"\x89PNG")
    page = (output / report.MARKDOWN).read_text()
    assert report.format_table(made.table, 2) in page
    assert f"({report.FIGURE})" in page
    value = json.loads((output / report.JSON).read_text())
    assert len(value["runs"]) == 7
    assert "types" not in value["runs"][2]["metrics"]["test"]["ner"]
    assert value["fit"]["optim"]["epochs"] == 2
    assert value["environment"]["packages"]["torch"]
    assert value["cells"]["full+equal"]["accuracy"]["mean"] == pytest.approx(0.935)


def test_last_line_is_short(finished: Path) -> None:
    value = json.loads(report.last_line(make(finished)))
    assert value["split"] == "test"
    assert value["cells"]["full+equal"]["f1"] == [0.825, 0.00707]
    assert value["cells"]["heads+equal"]["f1"][1] is None
    assert value["cells"]["ner-alone"]["accuracy"] is None


def test_a_report_without_a_result(settings: Path, tmp_path: Path) -> None:
    report.write_report(make(settings))
    assert (tmp_path / "compared" / report.FIGURE).is_file()


def test_groups_of_the_figure() -> None:
    words = {"strategies": ("full", "heads"), "balancers": ("equal", "famo")}
    strategies, balancers = groups(CompareSettings(**words))
    assert (strategies.labels, balancers.labels) == (["full", "heads"], ["equal", "famo"])
    full, heads = groups(CompareSettings(**words, cross=True))
    assert (full.labels, heads.labels) == (["equal", "famo"], ["equal", "famo"])
    assert heads.cells == [HEADS, Cell("heads", "famo")]


# Logs and the lock


def test_tail_of_a_log_with_a_progress_bar(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"an older run\nerror: old\n")
    start = path.stat().st_size
    with path.open("ab") as stream:
        stream.write(b"train: 12 examples\n\r 10%\r 50%\r100%\n\nerror: no \xff label\n")
    assert tail(path, start) == ["train: 12 examples", "100%", "error: no \ufffd label"]
    assert tail(path, start, lines=1) == ["error: no \ufffd label"]


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with (
        held(tmp_path / "one"),
        pytest.raises(ConfigError, match="in use"),
        held(tmp_path / "one"),
    ):
        pass
    with held(tmp_path / "one"):
        pass


# The command


def test_help_teaches() -> None:
    done = compare("--help")
    assert done.returncode == 0
    for name in CompareSettings.model_fields:
        assert f"--{name}" in done.stdout
    assert "--fit.model" not in done.stdout


def test_dry_run_lists_and_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    done = compare(str(finished), "--dry-run", "--seeds", "[1, 2]")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    assert lines[7].split()[:5] == ["heads+equal", "seed", "2", "to", "do"]
    assert json.loads(lines[-1]) == {"runs": 8, "done": 7, "begun": 0, "to do": 1}
    assert not (tmp_path / "compared" / report.JSON).exists()


def test_a_comparison_and_once_more(settings: Path, tmp_path: Path) -> None:
    done = compare(str(settings))
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert list(last["cells"]) == ["classification-alone", "ner-alone", "full+equal", "heads+equal"]
    assert last["cells"]["ner-alone"]["accuracy"] is None
    assert last["cells"]["ner-alone"]["f1"] is not None
    trained = {name: row["trained_parameters"][0] for name, row in last["cells"].items()}
    assert trained["heads+equal"] < trained["full+equal"]
    assert "4/4" in done.stderr
    runs = make_runs(load_comparison(settings))
    for run in runs:
        assert run.state == "done"
        assert not list(run.folder.rglob("*.safetensors"))
        assert (run.checkpoint / "history.json").is_file()
    before = {run.name: run.log.stat().st_size for run in runs}
    again = compare(str(settings))
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert {run.name: run.log.stat().st_size for run in runs} == before


@pytest.mark.slow
def test_a_comparison_with_teachers(settings: Path, tmp_path: Path) -> None:
    """The taught run waits for its baselines, whose weights stay; one that failed fails it too."""
    corpus = tmp_path / "corpus" / "train.jsonl"
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    for line in lines[::2]:
        del line["entities"]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [str(settings), "--strategies", "full", "--teachers", "ner"]
    _, tagger, _, taught = make_runs(load_comparison(settings, words[1:]))
    foreign = tagger.checkpoint / "thesis.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("not to be replaced")
    failed = compare(*words)
    assert failed.returncode == 1
    assert "ner-alone seed 1, which teaches it, did not finish" in failed.stderr
    foreign.unlink()
    done = compare(*words)
    assert done.returncode == 0, done.stderr
    assert "full + equal, taught by entities alone" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["cells"]["full+equal+ner-teacher"]["f1"]
    assert taught.teachers == (tagger,)
    (kept,) = tmp_path.rglob("compared/**/model.safetensors")
    assert kept.parent == tagger.checkpoint


@pytest.mark.slow
def test_a_failed_run_is_told_and_done_again(settings: Path, tmp_path: Path) -> None:
    words = [str(settings), "--strategies", "full", "--keep_checkpoints", "true"]
    failing = make_runs(load_comparison(settings))[1]
    foreign = failing.checkpoint / "thesis.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("not to be replaced")
    done = compare(*words)
    assert done.returncode == 1
    assert "error: 1 of 3 runs failed" in done.stderr
    assert f"ner-alone seed 1: exit status 1; log: {failing.log}" in done.stderr
    assert f"    error: {failing.checkpoint} exists and is no checkpoint" in done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["failed"] == ["ner-alone seed 1"]
    assert last["cells"]["ner-alone"]["f1"] is None
    assert last["cells"]["full+equal"]["f1"] is not None
    page = tmp_path / "compared" / report.MARKDOWN
    assert "Not finished: ner-alone seed 1." in page.read_text()
    assert len(list(tmp_path.rglob("compared/**/model.safetensors"))) == 2

    foreign.unlink()
    again = compare(*words)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["failed"] == []
    assert "Not finished" not in page.read_text()
    assert len(list(tmp_path.rglob("compared/**/model.safetensors"))) == 3


def start_until(settings: Path, done: int) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Start a comparison, one run at once; returns when so many are done and the next one runs."""
    words = [sys.executable, "-m", "multitask_train", "compare", str(settings), "--jobs", "1"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    )
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s and process.poll() is None:
        finished = len(list(settings.parent.rglob("result.json")))
        running = psutil.Process(process.pid).children()
        if finished == done and running:
            return process, running[0]
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"no run after {done} are done: {process.communicate()[0]}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stopped_and_killed_it_goes_on(settings: Path) -> None:
    process, child = start_until(settings, done=1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped; the same command goes on from there" in output
    assert not child.is_running()
    first = {path: path.stat().st_mtime_ns for path in settings.parent.rglob("result.json")}

    process, child = start_until(settings, done=2)
    child.suspend()  # it must outlive the comparison for certain
    try:
        process.kill()
        process.communicate(timeout=30)
        refused = compare(str(settings))
    finally:
        child.kill()
    assert refused.returncode == 1
    assert "is in use by another comparison, process " in refused.stderr
    psutil.wait_procs([child], timeout=30)

    done = compare(str(settings))
    assert done.returncode == 0, done.stderr
    assert all(run.state == "done" for run in make_runs(load_comparison(settings)))
    assert {path: path.stat().st_mtime_ns for path in first} == first
