"""The server environment is found in the documented order and checked before it is used."""

import json
import sys

import pytest

from multitask_core.errors import ServeError
from multitask_serve import environment
from multitask_serve.environment import check_environment, find_environment


@pytest.fixture
def make_environment(tmp_path):
    """An environment whose python3 answers the probe with given facts."""

    def make(name="server", **facts):
        folder = tmp_path / name
        triton = folder / "pytriton" / "tritonserver"
        for path in ("bin/tritonserver", "python_backend_stubs/3.11/triton_python_backend_stub"):
            (triton / path).parent.mkdir(parents=True, exist_ok=True)
            (triton / path).touch()
        answer = {
            "python_version": "3.11",
            "home": "/usr/bin",
            "site_folders": [str(folder / "site-packages")],
            "numpy_version": "1.26.4",
            "pytriton": str(folder / "pytriton"),
            "libpython": None,
            "libpython_found": True,
        } | facts
        (folder / "bin").mkdir()
        python = folder / "bin" / "python3"
        python.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
        python.chmod(0o755)
        return folder

    return make


def test_a_good_environment(make_environment):
    folder = make_environment()
    found = check_environment(folder)
    assert found.binary == folder / "pytriton/tritonserver/bin/tritonserver"
    assert found.stub.is_file()


def test_the_probe_runs_on_a_real_python(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    with pytest.raises(ServeError, match=r"nvidia-pytriton.*not installed.*make setup"):
        check_environment(tmp_path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"pytriton": None}, "nvidia-pytriton, .*is not installed"),
        ({"numpy_version": "2.1.0"}, r"numpy 2\.1\.0, with which .* empty"),
        ({"numpy_version": None}, "numpy is not installed"),
        ({"libpython_found": False}, r"Python 3\.11 has no shared library.*libpython3\.11"),
        ({"python_version": "3.14"}, r"no python backend for Python 3\.14, only for 3\.11"),
        ({"pytriton": "/nowhere"}, "no /nowhere/tritonserver/bin/tritonserver"),
    ],
)
def test_each_lack_is_named_and_setup_suggested(make_environment, facts, message):
    with pytest.raises(ServeError, match=rf"{message}[\s\S]*run `make setup`"):
        check_environment(make_environment(**facts))


def test_a_folder_that_is_no_environment(tmp_path):
    with pytest.raises(ServeError, match=r"no bin/python3.*make setup.*--server-env"):
        check_environment(tmp_path)


def test_a_python_that_does_not_run(make_environment):
    folder = make_environment()
    (folder / "bin" / "python3").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(ServeError, match=r"does not run \(broken\)"):
        check_environment(folder)


def test_the_search_order(make_environment, tmp_path, monkeypatch):
    asked, variable = make_environment("asked"), make_environment("variable")
    running = make_environment("running")
    monkeypatch.setattr(sys, "prefix", str(running))
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    assert find_environment().python == running / "bin/python3"
    beside = make_environment(".venv-server")
    assert find_environment().python == beside / "bin/python3"
    monkeypatch.setenv(environment.VARIABLE, str(variable))
    assert find_environment().python == variable / "bin/python3"
    assert find_environment(asked).python == asked / "bin/python3"


def test_an_environment_asked_for_is_never_replaced_by_another(make_environment, tmp_path):
    make_environment(".venv-server")
    with pytest.raises(ServeError, match="nowhere"):
        find_environment(tmp_path / "nowhere")
