"""Scenario files: read, checked by the commands' own parser, run one after the other."""

import json
from pathlib import Path

import pytest

from multitask_benchmarks.__main__ import main, make_parser
from multitask_benchmarks.results import ScenarioRecord, read_results, write_scenario
from multitask_benchmarks.suite import command as suite
from multitask_benchmarks.suite.files import read_files
from multitask_benchmarks.suite.launch import launch
from multitask_benchmarks.suite.plan import make_steps
from multitask_core.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "benchmarks" / "scenarios").glob("*.yaml"))
FILE = """
variables: {artifact: artifacts/demo, data: "", b: ""}
model: ${artifact}
scenarios:
  - name: one
    command: engines
    options:
      {artifact: "${artifact}", checkpoint: c, data: "${data}", subjects: [torch*, int8*],
      rounds: 5}
    quick: {rounds: 2}
  - name: two
    command: serving throughput
    options: {repository: ["a=${artifact}", b], checkpoint: c, data: d, allow_different: true}
  - name: three
    command: serving rollover
    needs: [b]
    options: {artifact: "${artifact}", artifact-b: "${b}", data: d}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "scenarios.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def steps(file):
    def steps(*common, quick=False, **assigned):
        return make_steps(
            read_files([file]), {"data": "x.jsonl", **assigned}, make_parser(), common, quick=quick
        )

    return steps


def test_options_become_the_commands_own(steps):
    one, two, three = steps("--name", "m")
    assert (one.options.kind, one.options.subjects, one.options.rounds) == (
        "engines",
        ["torch*", "int8*"],
        5,
    )
    assert (one.options.as_, one.options.name, one.options.data) == ("one", "m", "x.jsonl")
    assert two.options.repository == ["a=artifacts/demo", "b"]
    assert (two.options.kind, two.options.allow_different) == ("serving throughput", True)
    assert (three.remedy, three.arguments) == ("needs --set b=…", ())


def test_quick_and_given_variables(steps):
    one, _, three = steps(quick=True, artifact="else", b="other")
    assert (one.options.rounds, str(one.options.artifact)) == (2, "else")
    assert str(three.options.artifact_b) == "other"
    assert {one.options.name, three.options.name} == {"else"}
    assert [one.name, one.options.as_, three.name] == ["one quick", "one quick", "three quick"]


def test_a_short_run_of_two_files_replaces_none_of_its_own(file, steps):
    file.write_text(FILE.replace("name: two", "name: one quick"))
    with pytest.raises(ConfigError, match="another one is called 'one quick' with --quick"):
        steps(quick=True)
    assert [step.name for step in steps()] == ["one", "one quick", "three"]


def test_short_scenarios_are_named_with_or_without_their_ending(file, capsys):
    given = ["run", str(file), "--set", "data=x", "--quick", "--list", "--only"]
    for name in ("one", "one quick"):
        assert main([*given, name]) == 0
        assert capsys.readouterr().out.strip() == "one quick"
    assert main([*given, "four"]) == 1
    assert "known: one quick, two quick, three quick" in capsys.readouterr().err


def test_what_make_bench_runs_keeps_the_full_report():
    names = [{one.name for _, file in read_files([path]) for one in file.scenarios}
        for path in SHIPPED if path.stem.startswith("cpu")]  # fmt: skip
    assert len(names) == 2
    assert names[0].isdisjoint(names[1])


def test_a_scenarios_own_model_counts_before_the_runs_and_the_files(file, steps):
    file.write_text(FILE.replace("checkpoint: c, data: d,", "checkpoint: c, data: d, name: own,"))
    one, two, _ = steps("--name", "of the run")
    assert (one.options.name, two.options.name) == ("of the run", "own")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("command: engines", "command: engine", "no command 'engine'; known: run, "),
        ("command: engines", "command: serving", "'serving' needs one of throughput, "),
        ("command: engines", "command: demo", "no option 'artifact'|writes no scenario"),
        ("rounds: 5", "round: 5", "engines has no option 'round'; did you mean 'rounds'"),
        ("rounds: 5", "rounds: many", "scenario 'one': .*--rounds: invalid int value"),
        ("allow_different: true", "allow_different: 1", "is a switch: write true or false"),
        ("${data}", "${date}", "has no value for 'date': the file knows no such"),
        ("${data}", "$5", "write \\$\\$ for a dollar"),
        ("needs: [b]", "", "give --set b="),
        ("name: two", "name: one", "'one' stands in .* already"),
        ("quick:", "quik:", "unknown setting"),
        ("variables: {", "variables: [", "cannot read the settings file"),
    ],
)
def test_faults_are_named_before_anything_runs(file, capsys, old, new, said):
    file.write_text(FILE.replace(old, new, 1))
    assert main(["run", str(file), "--set", "data=x"]) == 1
    import re

    assert re.search(said, capsys.readouterr().err)


def test_assignments_are_checked(file, capsys):
    assert main(["run", str(file), "--set", "dat=x"]) == 1
    assert "no such variable; known: artifact, b, data" in capsys.readouterr().err
    assert main(["run", str(file), "--set", "x"]) == 1
    assert main(["run", str(file), "--set", "data=x", "--only", "four"]) == 1
    assert "known: one, two, three" in capsys.readouterr().err


def test_list_and_dry_run(file, capsys):
    given = [str(file), "--set", "data=a b.jsonl", "--output", "out"]
    assert main(["run", *given, "--list"]) == 0
    assert capsys.readouterr().out.split() == ["one", "two", "three"]
    assert main(["run", *given, "--dry-run", "--only", "one", "three"]) == 0
    one, three = capsys.readouterr().out.splitlines()
    assert one == (
        "python -m multitask_benchmarks engines --as one --name demo --output out "
        "--artifact artifacts/demo --checkpoint c --data 'a b.jsonl' "
        "--subjects 'torch*' 'int8*' --rounds 5"
    )
    assert three.startswith("# three: left out, needs --set b")


def test_a_failure_does_not_stop_the_others(steps, capsys):
    started = []

    def start(arguments):
        started.append(arguments[0])
        return "no graph" if arguments[0] == "engines" else ""

    outcomes = suite.run_steps(steps(), start)
    assert started == ["engines", "serving"]
    assert [(one.status, one.message) for one in outcomes] == [
        ("failed", "no graph"),
        ("done", ""),
        ("left out", "needs --set b=…"),
    ]
    assert "error: one: no graph" in capsys.readouterr().err


def test_resume_leaves_out_what_is_there(steps, tmp_path, monkeypatch):
    out = tmp_path / "out"
    (one, two, _) = steps("--output", str(out), "--name", "m")
    assert not suite.is_present(one.options, "one")
    record = ScenarioRecord.now("engines", suite.make_config(one.options))
    write_scenario(out, "m", "one", record)
    assert suite.is_present(one.options, "one")
    started = []
    outcomes = suite.run_steps([one, two], lambda words: started.append(words) or "", resume=True)
    assert [outcome.status for outcome in outcomes] == ["present", "done"]
    assert len(started) == 1
    (quick, *_) = steps("--output", str(out), "--name", "m", quick=True)
    assert not suite.is_present(quick.options, "one")
    write_scenario(
        out, "m", "one", ScenarioRecord.now("engines", record.config, details={"finished": False})
    )
    assert not suite.is_present(one.options, "one")
    write_scenario(out, "m", "one", record)
    missing = {"not_run": {"fastapi fp32": "no environment"}}
    for step, name, present in ((one, "one", True), (two, "two", False)):
        config, kind = suite.make_config(step.options), step.options.kind
        write_scenario(out, "m", name, ScenarioRecord.now(kind, config, details=missing))
        assert suite.is_present(step.options, name) == present
    machine = {**record.machine, "git": {"commit": "another"}}
    monkeypatch.setattr(suite, "describe_machine", lambda: machine)
    assert not suite.is_present(one.options, "one")


def test_a_process_of_its_own_says_what_went_wrong(file):
    name = "x" * 100_000  # a pipe holds 64 KiB
    assert name in launch(["run", str(file), "--set", "data=x", "--only", name])
    assert "status 2" in launch(["nonsense"])


@pytest.mark.slow
def test_from_the_file_to_the_result(tiny_checkpoint, corpus, tmp_path, capsys):
    path, out = tmp_path / "all.yaml", tmp_path / "out"
    path.write_text(
        "variables: {checkpoint: '', data: ''}\n"
        "scenarios:\n"
        "  - name: broken\n    command: engines\n"
        "    options: {checkpoint: '${checkpoint}/none', data: '${data}', lengths: data}\n"
        "  - name: mine\n    command: engines\n"
        "    options: {checkpoint: '${checkpoint}', data: '${data}', lengths: data, rows: 20,"
        " batch: [4], subjects: [torch fp32], device: cpu, rounds: 9}\n"
        "    quick: {rounds: 2, seconds: 0.05}\n"
    )
    given = ["--set", f"checkpoint={tiny_checkpoint}", f"data={corpus}", "--output", str(out)]
    assert main(["run", str(path), *given, "--quick", "--name", "tiny"]) == 1
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["status"] for one in line["scenarios"]] == ["failed", "done"]
    (result,) = out.iterdir()
    record = read_results(result).scenarios["mine quick"]
    assert len(record.measurements[0].metrics["rows_per_s"].rounds) == 2
    assert main(["run", str(path), *given, "--quick", "--name", "tiny", "--resume"]) == 1
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["status"] for one in line["scenarios"]] == ["failed", "present"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("quick", [False, True])
def test_shipped_files_are_whole(path, quick):
    (read,) = files = read_files([path])
    assigned = {name: "given" for name, value in read[1].variables.items() if not value}
    steps = make_steps(files, assigned, make_parser(), ("--output", "out"), quick=quick)
    assert steps
    assert not any(step.remedy for step in steps)
    used = " ".join(" ".join(step.arguments) for step in steps)
    assert "${" not in used


def test_all_shipped_files_run_together_and_leave_out_what_needs_a_gpu():
    files = read_files(SHIPPED)
    assigned = {name: "given" for _, file in files for name in file.variables}
    steps = make_steps(files, assigned, make_parser(), (), quick=False, has_gpu=False)
    left_out = {step.remedy for step in steps if step.name.endswith("gpu")}
    assert left_out == {"needs an NVIDIA GPU"}
    assert any(not step.remedy for step in steps)


def test_a_server_that_runs_already_is_always_asked_again(tmp_path):
    words = ["serving", "rates", "--url", "a=localhost:1", "--checkpoint", "c", "--data", "d"]
    options = make_parser().parse_args([*words, "--output", str(tmp_path), "--name", "m"])
    record = ScenarioRecord.now(options.kind, suite.make_config(options))
    write_scenario(tmp_path, "m", "rates", record)
    assert not suite.is_present(options, "rates")


def test_an_unknown_variable_is_not_silently_kept(file):
    file.write_text(FILE.replace("${artifact}", "${artefact}"))
    with pytest.raises(ConfigError, match="'artefact'"):
        make_steps(read_files([file]), {"data": "x"}, make_parser(), (), quick=False)
