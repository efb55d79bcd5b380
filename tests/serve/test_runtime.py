"""The folder of links under which the embedded server runs, and the servers found on PATH."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from multitask_core.errors import ServeError
from multitask_serve import runtime
from multitask_serve.environment import ServerEnvironment
from multitask_serve.runtime import default_state_folder, prepare_runtime


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """Prepare the runtime of an environment that exists by its paths only."""
    found = ServerEnvironment(
        python=tmp_path / "env/bin/python3",
        python_version="3.11",
        home=Path("/opt/python/bin"),
        site_folders=(tmp_path / "env/site-packages",),
        libpython=Path("/opt/python/lib/libpython3.11.so.1.0"),
        triton=tmp_path / "env/tritonserver",
    )
    monkeypatch.setattr(runtime, "find_environment", lambda asked: found)
    return lambda: prepare_runtime("embedded", tmp_path / "state", None)


def test_the_servers_python_is_first_in_path(embedded):
    python = Path(embedded().environ["PATH"].split(os.pathsep)[0]) / "python3"
    root = python.parents[1]
    assert python.readlink().name == "python3"
    assert "home = /opt/python/bin" in (root / "pyvenv.cfg").read_text()


def test_the_servers_python_finds_its_packages_beside_a_sitecustomize_of_the_system(
    tmp_path, monkeypatch
):
    """Debian's Python has one among its own modules, which come before a venv's packages."""
    for name in ("system", "packages"):
        (tmp_path / name).mkdir()
    (tmp_path / "system" / "sitecustomize.py").touch()
    found = ServerEnvironment(
        python=Path(sys.executable),
        python_version="{}.{}".format(*sys.version_info),
        home=Path(sys._base_executable).resolve().parent,
        site_folders=(tmp_path / "packages",),
        libpython=None,
        triton=tmp_path,
    )
    monkeypatch.setattr(runtime, "find_environment", lambda asked: found)
    environ = prepare_runtime("embedded", tmp_path / "state", None).environ
    python = Path(environ["PATH"].split(os.pathsep)[0]) / "python3"
    told = subprocess.run(
        [python, "-c", "import sitecustomize, sys; print(sys.path, sys.dont_write_bytecode, "
         "sitecustomize.__file__)"],
        env={**environ, "PYTHONPATH": str(tmp_path / "system")},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str(tmp_path / "system" / "sitecustomize.py") in told
    assert f"'{tmp_path / 'packages'}'" in told
    assert " True " in told


def test_the_backend_folder_holds_the_stub(embedded):
    (option,) = [part for part in embedded().command if part.startswith("--backend-directory=")]
    backend = Path(option.partition("=")[2]) / "python"
    assert {path.name for path in backend.iterdir()} == {
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    }


def test_libpython_alone_is_added_to_the_library_path(embedded, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    folder = Path(embedded().environ["LD_LIBRARY_PATH"])
    assert [path.name for path in folder.iterdir()] == ["libpython3.11.so.1.0"]
    monkeypatch.setenv("LD_LIBRARY_PATH", "/given")
    assert embedded().environ["LD_LIBRARY_PATH"] == f"{folder}:/given"


def test_python_variables_do_not_reach_the_server(embedded, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert "PYTHONPATH" not in embedded().environ


def test_the_folder_is_made_once(embedded, tmp_path):
    assert embedded().command == embedded().command
    assert len(list((tmp_path / "state" / "server").iterdir())) == 1


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
def test_other_targets_take_the_server_on_path(tmp_path, monkeypatch, target):
    binary = tmp_path / "tritonserver"
    binary.touch()
    binary.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prepare_runtime(target, tmp_path, None).command == [str(binary)]


def test_other_targets_without_a_server_name_the_container(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServeError, match=r"cuda needs .*Dockerfile\.triton.*--target embedded"):
        prepare_runtime("cuda", tmp_path, None)


def test_the_state_folder_follows_the_xdg_variable(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_state_folder() == Path("/somewhere/multitask-transformer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_state_folder() == Path.home() / ".cache" / "multitask-transformer"
