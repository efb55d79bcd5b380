"""The commands that ask a server, against a fake one."""

import json

import pytest
from rich.console import Console

from multitask_benchmarks import demo, stages, verify
from multitask_benchmarks.__main__ import main
from multitask_benchmarks.results import read_results
from multitask_benchmarks.subjects import InProcess
from multitask_core.prediction import Entity, Prediction


@pytest.fixture(autouse=True)
def _checkpoint(monkeypatch, checkpoint):
    for module in (stages, verify):
        monkeypatch.setattr(module, "open_checkpoint", lambda folder: checkpoint)


@pytest.fixture
def different(monkeypatch, model):
    """Make the checkpoint give other labels than the server."""

    def answers(texts):
        return [Prediction("odd", {"odd": 1.0}, one.entities) for one in model.predict(texts)]

    stand_in = InProcess("checkpoint", type(model)(answers), {"kind": "checkpoint"})
    for module in (stages, verify):
        monkeypatch.setattr(module, "open_checkpoint", lambda folder: stand_in)


@pytest.fixture
def bench(server, corpus, tmp_path):
    def bench(*arguments, checkpoint=True):
        short = ["--rounds", "2", "--seconds", "0.05", "--sizes", "1", "4"]
        given = ["--checkpoint", "runs/tiny"] if checkpoint else []
        common = ["--url", server.url, "--data", str(corpus), "--output", str(tmp_path / "out")]
        return main(["stages", *common, *short, *given, *arguments])

    return bench


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_stages(bench, capsys, tmp_path, server):
    assert bench() == 0
    brief = last_line(capsys)
    assert [(one["subject"], one["size"]) for one in brief["result"]["results"]] == [
        ("checkpoint", 1),
        ("Triton gRPC", 1),
        ("checkpoint", 4),
        ("Triton gRPC", 4),
    ]
    (path,) = (tmp_path / "out").iterdir()
    assert str(path) == brief["file"]
    assert path.name.startswith("tiny_")
    text = path.read_text("utf-8")
    record = read_results(path).scenarios["stages"]
    assert (record.kind, record.baseline) == ("stages", "checkpoint")
    assert record.details["agreement"]["Triton gRPC"]["all_equal"] == 40
    first = record.measurements[0].metrics["texts_per_s"]
    assert record.config["rounds"] == len(first.rounds) == 2
    assert len(record.config["data_sha256"]) == 64
    assert record.date[:7].replace("-", "") in path.name
    assert str(tmp_path) not in text
    assert server.url not in text


def test_stages_refuses_subjects_that_differ(bench, different, capsys, tmp_path):
    assert bench() == 1
    assert "differ on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert bench("--allow-different") == 0
    assert last_line(capsys)["result"]["agreement"]["Triton gRPC"]["labels_equal"] < 40


def test_stages_without_a_baseline(bench, capsys):
    assert bench("--name", "My Model", checkpoint=False) == 0
    result = last_line(capsys)
    assert "my-model_" in result["file"]
    assert all(one["speedup"] is None for one in result["result"]["results"])


def test_stages_says_what_is_wrong(bench, corpus, server, capsys):
    assert main(["stages", "--data", str(corpus)]) == 1
    assert "nothing to measure" in capsys.readouterr().err
    assert bench("--variant", "int8") == 1
    assert bench("--rounds", "0") == 1
    assert bench("--data", "missing.jsonl") == 1
    assert "missing.jsonl" in capsys.readouterr().err


def test_texts_come_in_a_fixed_mixed_order(corpus):
    texts = stages.read_texts(str(corpus), 10)
    assert texts == stages.read_texts(str(corpus), 10)
    assert len(set(texts)) == 10
    assert texts != sorted(texts, key=len)


def test_verify(server, corpus, capsys, tmp_path):
    output = tmp_path / "out"
    common = ["verify", "--url", server.url, "--data", str(corpus), "--checkpoint", "runs/tiny"]
    assert main([*common, "--output", str(output)]) == 0
    out = capsys.readouterr().out
    record = json.loads(out.splitlines()[-1])
    (path,) = output.iterdir()
    found = read_results(path).scenarios["verify"]
    assert {**found.details, "file": str(path)} == {"finished": True, **record}
    assert record["agreement"]["all_equal"] == record["requests"] == 40
    assert record["metrics"]["server"]["classification"]["accuracy"] == 1
    assert record["metrics"]["server"]["ner"]["f1"] == 1
    assert "100.00%" in out
    assert main([*common, "--concurrency", "0"]) == 1


def test_verify_fails_where_answers_differ(server, corpus, different, capsys, tmp_path):
    common = ["verify", "--url", server.url, "--data", str(corpus), "--checkpoint", "runs/tiny"]
    common += ["--output", str(tmp_path / "out")]
    assert main(common) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["agreement"]["labels_equal"] == 20
    assert "differ on 20 of 40" in captured.err
    (path,) = (tmp_path / "out").iterdir()
    assert read_results(path).scenarios["verify"].details["finished"] is False
    assert main([*common, "--allow-different"]) == 0
    assert read_results(path).scenarios["verify"].details["finished"] is True


def test_demo(server, corpus, capsys):
    common = ["demo", "--url", server.url, "--data", str(corpus)]
    assert main([*common, "--checkpoint", "runs/tiny", "--artifact", "artifacts/tiny"]) == 0
    out = capsys.readouterr().out
    assert "[0](number)" in out
    result = json.loads(out.splitlines()[-1])
    assert (result["requests"], result["checkpoint"]) == (200, "runs/tiny")
    assert result["p50_ms"] > 0


def test_demo_without_a_server(server, corpus, capsys, monkeypatch):
    server.close()
    monkeypatch.setattr(
        demo.Client, "wait_until_ready", lambda self, timeout_s: self.predict(["a"])
    )
    assert main(["demo", "--url", server.url, "--data", str(corpus)]) == 1
    assert server.url in capsys.readouterr().err


def test_demo_sentences_vary(tmp_path):
    path = tmp_path / "data.jsonl"
    records = [
        {"text": f"{label} {number}", "label": label} for label in "abc" for number in range(9)
    ]
    path.write_text("\n".join(map(json.dumps, records)), "utf-8")
    assert demo.pick_texts(str(path), 4) == ["a 0", "b 0", "c 0", "a 1"]
    assert len(demo.pick_texts(str(path), 100)) == 27


def test_entities_are_marked_with_and_without_colour():
    text = "from [x] Lyon to 日本 now"
    entities = (Entity("city", "Lyon", 9, 13, 1.0), Entity("land", "日本", 17, 19, 1.0))
    answer = Prediction("trip", {"trip": 1.0}, entities)
    assert demo.markup(text, answer) == "from [x] [Lyon](city) to [日本](land) now"
    for colours, wanted in (("truecolor", "\x1b[1;32mLyon"), (None, "[Lyon](city)")):
        out = Console(color_system=colours, force_terminal=True, width=100)
        with out.capture() as capture:
            out.print(demo.answers_table([text], [answer], out))
        assert wanted in capture.get()


@pytest.mark.parametrize("command", ["stages", "verify", "demo"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"python -m multitask_benchmarks {command}" in capsys.readouterr().out
