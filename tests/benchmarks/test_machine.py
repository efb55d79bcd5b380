import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from multitask_benchmarks import machine

CPUINFO = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu avx2 avx512f amx_bf16 amx_tile sse
"""


def test_the_description_is_json_and_names_no_place():
    text = json.dumps(machine.describe_machine())
    for secret in (
        platform.node(),
        str(Path.cwd()),
        str(Path.home()),
        str(Path(__file__).parents[2]),
    ):
        if len(secret) > 3:
            assert secret not in text


def test_the_description_says_what_matters():
    found = machine.describe_machine()
    assert found["cpus"] >= 1
    assert found["memory_gib"] > 0
    assert found["cpu"]
    assert {"numpy", "tritonclient"} <= set(found["packages"])


def test_cpu():
    assert machine.cpu_model(CPUINFO) == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert machine.cpu_flags(CPUINFO) == ["avx2", "avx512f", "amx_tile", "amx_bf16"]
    assert machine.cpu_model("") == platform.machine()
    assert machine.cpu_flags("") == []


@pytest.mark.parametrize(
    ("facts", "slug"),
    [
        ({"cpu": machine.cpu_model(CPUINFO), "gpus": []}, "intel-xeon-platinum-8481c-4cpu"),
        ({"cpu": "AMD EPYC", "gpus": []}, "amd-epyc-4cpu"),
        ({"cpu": "AMD EPYC", "gpus": ["NVIDIA L4, 570.1", "NVIDIA L4, 570.1"]}, "nvidia-l4"),
    ],
)
def test_hardware_slug(facts, slug):
    assert machine.hardware_slug({**facts, "cpus": 4}) == slug


def test_a_run_on_the_cpu_beside_a_gpu_is_named_by_the_cpu():
    machine_ = {"cpu": "AMD EPYC", "gpus": ["NVIDIA L4, 570.1"], "cpus": 4}
    assert machine.hardware_slug(machine_, "cpu") == "amd-epyc-4cpu"
    assert machine.hardware_slug(machine_, "auto") == "nvidia-l4"


def test_a_gpus_libraries_are_named(monkeypatch):
    assert "cuda" not in machine.describe_machine()
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_name=lambda _: "NVIDIA L4"
    )
    cudnn = SimpleNamespace(version=lambda: 91002)
    torch = SimpleNamespace(
        cuda=cuda, version=SimpleNamespace(cuda="12.8"), backends=SimpleNamespace(cudnn=cudnn)
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = machine.describe_machine()
    assert (found["cuda"], found["cudnn"]) == ("12.8", 91002)


def test_slug():
    assert machine.slug("Ünï/My Model_v2") == "n-my-model-v2"
    assert machine.slug("///") == "unnamed"


def test_git_state(tmp_path):
    assert machine.git_state(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    result = tmp_path / "benchmarks" / "results" / "m.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    subprocess.run([*git, "add", "benchmarks"], check=True)
    subprocess.run([*git, "commit", "-qm", "second"], check=True)
    result.write_text('{"a": 1}')
    state = machine.git_state(tmp_path / "benchmarks")
    assert len(state["commit"]) == 40
    assert not state["dirty"]
    (tmp_path / "file").write_text("two")
    assert machine.git_state(tmp_path / "benchmarks")["dirty"]
    assert machine.git_state(tmp_path)["dirty"]
