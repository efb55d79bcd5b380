import json
import shutil
import sys
from types import SimpleNamespace

from multitask_core import machine


def without_programs(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_the_description_is_json_and_holds_what_was_asked_for(tmp_path):
    found = machine.describe(["numpy", "no-such-package"], tmp_path)
    assert json.loads(json.dumps(found)) == found
    assert list(found["packages"]) == ["numpy"]
    assert found["git"] is None
    assert found["cpus"] >= 1


def test_programs_that_are_missing_or_fail_say_nothing():
    assert machine._output("no-such-program") is None
    assert machine._output("git", "no-such-command") is None


def test_gpus_come_from_torch_where_nvidia_smi_is_missing(monkeypatch):
    without_programs(monkeypatch)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda i: f"GPU {i}"
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert machine.gpus() == ["GPU 0", "GPU 1"]
    cuda.is_available = lambda: False
    assert machine.gpus() == []


def test_torch_is_not_loaded_to_be_asked(monkeypatch):
    without_programs(monkeypatch)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert machine.gpus() == []
    assert "torch" not in sys.modules
