"""Rules and dashboard ask for metrics that exist, and every alert has a case in which it fires."""

import json
import re
import shutil
import subprocess

import pytest

from multitask_core.telemetry import COUNTERS

# Triton 2.51 to 2.71, as its metrics page shows them; the GPU's as its documentation names them.
_SUMMARIES = ("request", "queue", "compute_input", "compute_infer", "compute_output")
TRITON = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_pending_request_count",
    *(f"nv_inference_{name}_duration_us" for name in _SUMMARIES),
    *(f"nv_inference_{name}_summary_us" for name in _SUMMARIES),
    "nv_cpu_utilization",
    "nv_cpu_memory_total_bytes",
    "nv_cpu_memory_used_bytes",
    "nv_gpu_utilization",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_power_limit",
}
OURS = set(COUNTERS)
PROMETHEUS = {"up", "probe_success", "ALERTS"}
_WORDS = {"and", "or", "unless", "bool", "offset"}


def metrics(expression):
    """The names of the series that a PromQL expression reads."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\b\s*(\([^)]*\))?", " ", bare)
    names = re.findall(r"(?<![\w.$])([A-Za-z_:][\w:]*)(?!\w)(?!\s*\()", bare)
    return set(names) - _WORDS


@pytest.fixture(scope="module")
def rules(read_yaml):
    groups = read_yaml("prometheus/rules.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def recorded(rules):
    return {rule["record"] for rule in rules if "record" in rule}


@pytest.fixture(scope="module")
def dashboard(root):
    path = root / "deploy/grafana/dashboards/multitask.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('sum by (le) (rate(a_total{m="x y"}[5m])) / on () group_left b', {"a_total", "b"}),
        ('up{job="t"} == 1 unless on (job) c{d="e"}', {"up", "c"}),
        ("avg_over_time(x:y:mean30m[1d] offset 1h) < 0.9 * 1e3", {"x:y:mean30m"}),
    ],
)
def test_names_are_read_off_an_expression(expression, expected):
    assert metrics(expression) == expected


def test_rules_read_known_metrics(rules, recorded):
    for rule in rules:
        found = metrics(rule["expr"])
        assert found, rule
        assert found <= TRITON | OURS | PROMETHEUS | recorded, rule
    names = [rule.get("alert") or rule["record"] for rule in rules]
    assert len(names) == len(set(names))


def test_alerts_say_what_is_wrong_and_what_to_do(rules):
    alerts = [rule for rule in rules if "alert" in rule]
    assert len(alerts) >= 8
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert.keys() >= {"for"}
        assert alert["annotations"].keys() == {"summary", "action"}


def test_every_alert_fires_in_a_case_and_is_quiet_in_another(rules, read_yaml):
    cases = [
        case for test in read_yaml("prometheus/rules_test.yml")["tests"]
        for case in test["alert_rule_test"]
    ]  # fmt: skip
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus's promtool")
@pytest.mark.parametrize(
    "command", ["check rules rules.yml", "test rules rules_test.yml"], ids=["check", "test"]
)
def test_promtool_agrees(root, command):
    program = ["promtool", *command.split()]
    answer = subprocess.run(
        program, cwd=root / "deploy/prometheus", capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_panels_read_known_metrics_from_the_provisioned_source(dashboard, recorded, read_yaml):
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    read = set()
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}
            found = metrics(target["expr"])
            assert found <= TRITON | OURS | PROMETHEUS | recorded, panel["title"]
            read |= found
    # Each of our own figures is shown somewhere.
    assert read >= OURS


def test_panels_stand_beside_each_other(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_variables_that_panels_use_are_defined(dashboard):
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = json.dumps(dashboard["panels"])
    assert set(re.findall(r"\$(\w+)", text)) == defined | {"__rate_interval"}
