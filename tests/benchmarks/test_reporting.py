"""The report: one page without network, the README's tables, published figures beside ours."""

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from multitask_benchmarks.__main__ import main
from multitask_benchmarks.recording import make_config
from multitask_benchmarks.reporting import markdown as tables
from multitask_benchmarks.reporting import published
from multitask_benchmarks.reporting.plots import plots
from multitask_benchmarks.reporting.points import shown, title
from multitask_benchmarks.reporting.sections import command, page, warnings
from multitask_benchmarks.results import (
    Measured,
    Metric,
    ResultFile,
    ScenarioRecord,
    read_results,
    write_scenario,
)

ROOT = Path(__file__).parents[2]
BASE = {"hidden": 768, "layers": 12}
NASTY = '<script>alert("&")</script>'


class Tags(HTMLParser):
    """Opened and closed tags, addresses, and what is left open."""

    VOID = ("meta", "br", "path", "use", "rect", "line")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.addresses = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        loaded = ("src", "href", "xlink:href")
        self.addresses += [value for name, value in attributes if name in loaded]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def measured(subject, point, factor=1.0, **more):
    rates = [factor * one for one in (100.0, 101.0, 102.0)]
    metrics = {
        "rows_per_s": Metric.of(rates, "1/s", "higher"),
        "p50_ms": Metric.of([1e3 / one for one in rates], "ms", "lower"),
        "p99_ms": Metric.of([3e3 / one for one in rates], "ms", "lower"),
        **more,
    }
    return Measured(subject, point, metrics)


def engines(machine=None):
    share = Metric.of([0.5, 0.51, 0.49], "", "higher")
    both = {"utilisation": share, "padding_share": share}
    rows = [
        measured(name, {"batch": batch, "length": length}, factor / length, **both)
        for name, factor in (("torch", 1.0), (NASTY, 2.0))
        for batch in (1, 8)
        for length in (16, 128)
    ]
    record = ScenarioRecord.now("engines", {"rounds": 3, "artifact": "m"}, baseline="torch",
        measurements=rows, details={"agreement": {NASTY: {"texts": 3}}})  # fmt: skip
    return record if machine is None else ScenarioRecord(
        record.kind, record.date, {**record.machine, **machine}, record.config, record.baseline,
        record.measurements, record.details,
    )  # fmt: skip


def throughput():
    rows = [
        measured(name, {"callers": callers}, factor * callers)
        for name, factor in (("peer | one", 1.0), ("ours", 3.0))
        for callers in (1, 8)
    ]
    missing = {"peer <two>": "no Java on PATH"}
    return ScenarioRecord.now("serving throughput", {"sizes": [1, 8]}, baseline="peer | one",
        measurements=rows, details={"not_run": missing})  # fmt: skip


@pytest.fixture
def file(tmp_path):
    write_scenario(tmp_path, "bert-base", "engines", engines())
    write_scenario(tmp_path, "bert-base", "soak", ScenarioRecord.now("serving soak", {}))
    return write_scenario(tmp_path, "bert-base", "throughput", throughput())


def test_the_page_is_whole_and_loads_nothing(file):
    text = page({file: read_results(file)}, [])
    tags = Tags(text)
    assert "script" not in tags.seen
    assert "&lt;script&gt;" in text
    assert all(address.startswith("#") for address in tags.addresses)
    # Namespaces name a format, and sources of published figures are text: nothing is fetched.
    assert not re.search(r"url\((?!#)|@import|<link", text)
    assert tags.seen.count("svg") >= 7
    assert {"html", "body"} >= set(tags.open)
    assert "prefers-color-scheme: dark" in text
    assert "name=viewport" in text
    assert "currentColor" in text
    for said in (
        "bert-base: engines",
        "serving throughput --sizes 1 8",
        "not measured",
        "Python 3",
    ):
        assert said in text


def test_the_page_begins_with_who_was_fastest_in_each_scenario(file):
    text = page({file: read_results(file)}, [])
    first, _, _ = text.partition("</table>")
    rows = [re.findall("<td>(.*?)</td>", one) for one in re.findall("<tr>(.*?)</tr>", first)]
    linked = {cells[0].partition(">")[2].removesuffix("</a>"): cells[3:] for cells in rows if cells}
    # Three times the rate with one and with eight callers.
    told = ["peer | one", "ours", "3.00", "2: 3.00 to 3.00", "0 of 2"]
    assert linked["bert-base: throughput"] == told
    assert linked["bert-base: soak"] == ["–"] * 5
    ids = set(re.findall(r'id="?([^">]+)', text))
    assert {one[1:] for one in Tags(first + "</table></div>").addresses} <= ids


def test_what_did_not_run_is_shown_with_its_reason(file):
    before_facts, _, _ = page({file: read_results(file)}, ["throughput"]).partition("<details>")
    assert "<td>peer &lt;two&gt;</td><td>no Java on PATH</td>" in before_facts


def test_failures_stand_before_the_figures(tmp_path):
    agreement = {
        "<b>": {"texts": 512, "all_equal": 509},
        "same": {"texts": 9, "all_equal": 9},
    }
    details = {"finished": False, "sent": 1000, "failed": 3, "agreement": agreement}
    record = replace(ScenarioRecord.now("serving soak", {}), details=details)
    path = write_scenario(tmp_path, "m", "soak", record)
    seen, _, _ = page({path: read_results(path)}, []).partition("<details>")
    for said in (
        "Not finished",
        "3 of 1,000 requests failed",
        "&lt;b&gt;: other answers to 3 of 512",
    ):
        assert said in seen
    assert "same: other" not in seen
    assert warnings(throughput()) == warnings(engines()) == []
    verdict = {"finished": False, "requests": 20, "verdict": {"faults": 2}}
    assert "2 of 20" in warnings(replace(record, details=verdict))[1]
    assert warnings(replace(record, details={"agreement": {"texts": 7, "all_equal": 6}})) == [
        "server: other answers to 1 of 7 texts"
    ]


def test_a_machine_that_was_too_noisy_is_named():
    def rounds(*values):
        return Metric.of([100 * one for one in values], "1/s", "higher")

    calm, wild, wilder = rounds(1, 1, 1), rounds(1, 2, 3), rounds(3, 1, 2)
    for mine, base, told in (
        (calm, calm, []),
        (wild, wild, []),  # slow minutes cancel where both were measured in them
        (wilder, wild, ["The machine was too noisy: 1 of 1 figures"]),
    ):
        found = [
            Measured(name, {"callers": 1}, {"requests_per_s": one})
            for name, one in (("peer", base), ("ours", mine))
        ]
        record = replace(throughput(), measurements=found, baseline="peer")
        assert [line.partition(" differ")[0] for line in warnings(record)] == told


def test_the_markdown_table_marks_other_answers_and_what_was_not_answered(tmp_path):
    share = Metric.of([0.5, 1.0, 0.25], "", "higher")
    rows = [measured("ours", {"phase": name}, answered_share=one) for name, one in (
        ("before", Metric.of([1.0], "")), ("overload", share))]  # fmt: skip
    record = ScenarioRecord.now("serving overload", {}, measurements=rows,
        details={"agreement": {"ours": {"texts": 512, "all_equal": 500}}})  # fmt: skip
    path = write_scenario(tmp_path, "m", "overload", record)
    lines = tables.markdown([path], [], tmp_path).splitlines()
    assert "† other answers: ours 12 of 512 texts" in lines[0]
    assert lines[-1].startswith("| ours † | 101 | 101<br>50.0% answered |")


def test_a_table_of_many_points_is_turned(tmp_path):
    rows = [
        measured(name, {"callers": callers}, float(callers))
        for name in ("ours", "peer")
        for callers in range(1, 8)
    ]
    record = ScenarioRecord.now("serving throughput", {}, measurements=rows)
    path = write_scenario(tmp_path, "m", "throughput", record)
    lines = tables.markdown([path], [], tmp_path).splitlines()
    assert lines[2] == "| | ours | peer |"
    assert [line.split("|")[1].strip() for line in lines[4:]] == [
        "1 caller",
        *(f"{callers} callers" for callers in range(2, 8)),
    ]


def test_plots_follow_from_points_and_metrics():
    captions = [caption.partition(":")[0] for caption, _ in plots("engines", engines())]
    assert (
        captions
        == ["Scaling by batch and length"] * 2
        + ["Padding waste"] * 2
        + ["Utilisation against the peak measured in the same rounds"] * 2
    )
    captions = [caption for caption, _ in plots("throughput", throughput())]
    assert captions == ["Latency percentiles by load"] * 2 + ["Throughput against p99"]
    assert plots("soak", ScenarioRecord.now("serving soak", {})) == []
    shares = [measured("ours", {"load": share}, share) for share in (0.2, 0.8)]
    rates = ScenarioRecord.now("serving rates", {}, measurements=shares)
    captions = [caption for caption, _ in plots("rates", rates)]
    assert captions == ["Latency percentiles by load"] * 2 + ["Throughput against p99"]


def test_long_runs_are_drawn_over_time():
    answered = {"p50_ms": 5.0, "p95_ms": None, "p99_ms": 9.0}
    details = {
        "windows": [{"at_s": 60.0 * minute, "answered": answered} for minute in range(3)],
        "memory": {"samples": [{"at_s": 10.0, "cpu_s": 1.0, "stub <1>": 300.0}]},
    }
    soak = plots("soak", ScenarioRecord.now("serving soak", {}, details=details))
    assert [caption for caption, _ in soak] == ["Latency over time", "Memory over time"]
    assert "stub &lt;1&gt;" in soak[1][1]
    slots = [
        {"start_s": start, "sent": 9, "answered": 4, "p50_ms": None, "p99_ms": 80.0}
        for start in (0.0, 0.5)
    ]
    details = {"series": {"before": slots, "overload": slots, "after": []}}
    overload = plots("overload", ScenarioRecord.now("serving overload", {}, details=details))
    assert len(overload) == 2
    assert "requests/s" in overload[1][1]


def test_equal_results_give_equal_pages(file):
    files = {file: read_results(file)}
    assert page(files, ["throughput"]) == page(files, ["throughput"])
    assert "engines" not in page(files, ["soak"])


def test_figures_are_shown_with_interval_and_noise():
    assert shown(Metric.of([10.0, 20.0, 30.0], "ms")) == "20.0 [10.0, 30.0] ~"
    assert shown(Metric.of([2.0], "ms")) == "2.00"
    assert shown(Metric.of([0.25], "")) == "25.0%"
    assert title({"callers": 1}) == "1 caller"
    assert title({"load": 0.2}) == "load 20%"
    assert title({"batch": 8, "length": "data"}) == "batch 8, length data"


def test_the_command_of_a_scenario_is_named():
    config = {
        "sizes": [1, 8],
        "allow_different": True,
        "updates": 0,
        "url": None,
        "data": "a b",
        "data_sha256": "x",
    }
    record = ScenarioRecord.now("serving throughput", {**config, "peer": ["fastapi", "b:bf16"]})
    assert command(record) == (
        "python -m multitask_benchmarks serving throughput --sizes 1 8 --allow-different "
        "--updates 0 --data 'a b' --peer=fastapi --peer=b:bf16"
    )
    old = ScenarioRecord.now("graphs", {"sizes": [1, 8], "quick": False})
    assert command(old) == "python -m multitask_benchmarks graphs --sizes 1 8"


def test_the_command_of_a_scenario_can_be_given():
    from multitask_benchmarks.__main__ import make_parser

    words = [
        "serving", "throughput", "--repository", "a=r", "--repository", "b=r", "--data", "d",
        "--checkpoint", "c", "--peer", "fastapi", "--peer", "litserve:bf16", "--sizes", "1", "8",
    ]  # fmt: skip
    options = make_parser().parse_args(words)
    shown = command(ScenarioRecord.now(options.kind, make_config(options)))
    again = make_parser().parse_args(shlex.split(shown)[3:])
    assert make_config(again) == make_config(options)


def test_published_figures_stand_beside_ours_on_a_gpu_alone():
    on_cpu = ResultFile("bert-base", {"engines": engines({"gpus": []})})
    assert {row[4] for row in published.rows([on_cpu])} == {"not measured"}
    gpus = {"gpus": ["NVIDIA X, 500.1"]}
    beside = replace(engines(gpus), details={"settled": {"device": "cpu"}, "flops": BASE})
    on_cpu_beside = ResultFile("bert-base", {"engines": beside})
    assert {row[4] for row in published.rows([on_cpu_beside])} == {"not measured"}
    gpu = replace(engines(gpus), details={"settled": {"device": "cuda"}, "flops": BASE})
    rows = published.rows([on_cpu, ResultFile("whatever its name", {"engines": gpu})])
    ours = {row[2]: row[4:6] for row in rows}
    fastest = gpu.find(NASTY, {"batch": 1, "length": 128}).metrics["p50_ms"].median
    figure, where = ours["BERT-base, 128 pieces, batch 1"]
    assert figure.startswith(f"{fastest:,.0f}")
    assert where == f"{NASTY} on NVIDIA X"
    assert ours["BERT-base, 128 pieces, batch 32"] == ("not measured", "")
    assert ours["MiniLM, 128 pieces, batch 1"] == ("not measured", "")


def test_the_markdown_table(file, capsys):
    assert main(["report", str(file), "--scenario", "throughput", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "rows/s, × against peer | one" in lines[0]
    assert lines[2] == "| | 1 caller | 8 callers |"
    (ours,) = (line for line in lines if line.startswith("| ours"))
    assert "303 (3.00× [3.00, 3.00])<br>p50 3.30 ms, p99 9.90 ms" in ours
    (peer,) = (line for line in lines if line.startswith("| peer"))
    assert peer.startswith("| peer \\| one | 101<br>")


def test_the_block_is_rewritten_and_knows_its_command(file, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    given = ["report", str(file), "--scenario", "throughput", "engines", "--readme", str(readme)]
    assert main(given) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert f"({file.name})" in text
    block, arguments = tables.read_block(readme)
    assert arguments == f"{file.name} --scenario throughput engines --readme README.md"
    again = tables.make_block(readme, [file], ["throughput", "engines"])
    assert again.strip() == block
    assert json.loads(capsys.readouterr().out)["files"] == [str(readme)]


def test_what_the_report_refuses(file, tmp_path, capsys):
    assert main(["report", str(file), "--scenario", "none"]) == 1
    assert "they have: engines, soak, throughput" in capsys.readouterr().err
    readme = tmp_path / "README.md"
    readme.write_text(f"{tables.END}{tables.BEGIN}")
    assert main(["report", str(file), "--readme", str(readme)]) == 1
    assert "put both where tables go" in capsys.readouterr().err
    assert main(["report", str(file), "--scenario", "soak", "--markdown"]) == 1
    assert "no figures in" in capsys.readouterr().err


def test_the_committed_readme_says_what_the_committed_results_say(monkeypatch):
    """Holds once the README has a filled block; its first line is the command that made it."""
    found = tables.read_block(ROOT / "README.md")
    if found is None:
        pytest.skip("the README has no block of results yet")
    block, arguments = found
    options = make_options(shlex.split(arguments))
    monkeypatch.chdir(ROOT)
    assert tables.make_block(Path("README.md"), options.results, options.scenario).strip() == block


def make_options(arguments):
    from multitask_benchmarks.__main__ import make_parser

    return make_parser().parse_args(["report", *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")))
def test_committed_results_make_a_page(path):
    text = page({path: read_results(path)}, [])
    assert Tags(text).seen.count("h2") == len(read_results(path).scenarios) + 1


def test_a_scenario_without_rates_has_a_column_for_each_figure(tmp_path):
    ready = {"ready_s": Metric.of([1.0, 1.1, 1.0], "s", "lower")}
    record = ScenarioRecord.now("serving start", {}, measurements=[Measured("Triton", {}, ready)])
    path = write_scenario(tmp_path, "m", "start", record)
    text = tables.markdown([path], [], tmp_path)
    assert "| | at | ready s, s |" in text
    assert "| Triton | – | 1.00 [1.00, 1.10] |" in text
    assert "[lowest, highest]" in text


def test_a_subject_without_the_rate_is_no_row_of_dashes(tmp_path):
    record = engines()
    peak = {"gflop_per_s": Metric.of([1.0] * 3, "GFLOP/s")}
    record.measurements.append(Measured("GEMM peak fp32", {"batch": 1, "length": 16}, peak))
    path = write_scenario(tmp_path, "m", "engines", record)
    assert "GEMM peak" not in tables.markdown([path], [], tmp_path)


def test_a_rate_of_nothing_does_not_break_the_page(tmp_path):
    rows = [
        Measured(name, {"p99_ms": 50}, {"max_rate_per_s": Metric.of(rates, "1/s", "higher")})
        for name, rates in (("ours", [100.0] * 5), ("other", [0.0] * 5))
    ]
    record = ScenarioRecord.now("serving max-rate", {}, baseline="ours", measurements=rows)
    path = write_scenario(tmp_path, "m", "max-rate", record)
    assert "max-rate" in page({path: read_results(path)}, [])


def test_where_the_load_is_given_p99_tells_the_noise():
    rows = [
        Measured("ours", {"load": load}, {
            "answers_per_s": Metric.of([100.0 * load] * 5, "1/s", "higher"),
            "p99_ms": Metric.of([10.0, 30.0, 20.0, 50.0, 15.0], "ms", "lower"),
        })
        for load in (0.4, 0.8)
    ]  # fmt: skip
    record = ScenarioRecord.now("serving rates", {}, measurements=rows)
    assert any("too noisy: 2 of 2 figures" in line for line in warnings(record))
