"""Finds the environment that holds the embedded Triton server, and checks it before it is used.

The server runs apart from training: its python backend answers with empty tensors under numpy 2.
`make setup` builds the environment as `.venv-server` beside the one that runs this package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from multitask_core.errors import ServeError

VARIABLE = "MULTITASK_SERVER_ENV"

# Run by the environment's own Python, isolated as Triton's stub runs it.
_PROBE = """
import ctypes, importlib.metadata, importlib.util, json, os, site, sys, sysconfig

def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

def loads(library):
    try:
        return bool(library and ctypes.CDLL(library))
    except OSError:
        return False

soname = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
own = os.path.join(sysconfig.get_config_var("LIBDIR") or "", soname)
spec = importlib.util.find_spec("pytriton")
print(json.dumps({
    "python_version": "%d.%d" % sys.version_info[:2],
    "home": os.path.dirname(os.path.realpath(getattr(sys, "_base_executable", sys.executable))),
    "site_folders": site.getsitepackages(),
    "numpy_version": version("numpy"),
    "pytriton": list(spec.submodule_search_locations)[0] if spec else None,
    "libpython": own if os.path.isfile(own) else None,
    "libpython_found": os.path.isfile(own) or loads(soname),
}))
"""


class ServerEnvironment(NamedTuple):
    """A checked environment: its Python, and the Triton that its nvidia-pytriton carries."""

    python: Path
    python_version: str
    home: Path
    site_folders: tuple[Path, ...]
    libpython: Path | None
    triton: Path

    @property
    def stub(self) -> Path:
        """The python backend's worker for this Python version."""
        folder = self.triton / "python_backend_stubs" / self.python_version
        return folder / "triton_python_backend_stub"

    @property
    def binary(self) -> Path:
        """The server itself."""
        return self.triton / "bin" / "tritonserver"


def find_environment(asked: Path | None = None) -> ServerEnvironment:
    """Return the first environment of the search order that exists, checked.

    Order: `asked` (--server-env), $MULTITASK_SERVER_ENV, `.venv-server` beside the running
    environment, the running environment.
    """
    if asked is not None:
        return check_environment(asked)
    variable = os.environ.get(VARIABLE)
    if variable:
        return check_environment(Path(variable))
    beside = Path(sys.prefix).parent / ".venv-server"
    return check_environment(beside if beside.is_dir() else Path(sys.prefix))


def check_environment(folder: Path) -> ServerEnvironment:
    """Return the environment in `folder`; a ServeError says what it lacks."""
    # Not resolved: a venv's python3 is a link, and what it links to is another environment.
    python = folder.absolute() / "bin" / "python3"
    if not python.exists():
        raise ServeError(
            f"no server environment at {folder} (no bin/python3): run `make setup`, or name "
            f"another with --server-env or ${VARIABLE}"
        )
    found = _probe(python)
    fault = _fault(found)
    if fault:
        raise ServeError(f"server environment {folder}: {fault}: run `make setup`")
    environment = ServerEnvironment(
        python=python,
        python_version=found["python_version"],
        home=Path(found["home"]),
        site_folders=tuple(Path(name) for name in found["site_folders"]),
        libpython=Path(found["libpython"]) if found["libpython"] else None,
        triton=Path(found["pytriton"]) / "tritonserver",
    )
    _check_files(folder, environment)
    return environment


def _probe(python: Path) -> dict[str, Any]:
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found: dict[str, Any] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise ServeError(
            f"{python} does not run ({reason.strip().splitlines()[-1]}): run `make setup`"
        ) from error
    return found


def _fault(found: dict[str, Any]) -> str | None:
    """Say what keeps the environment from serving, None when nothing does."""
    numpy_version = found["numpy_version"]
    if found["pytriton"] is None:
        return "nvidia-pytriton, which carries the embedded tritonserver, is not installed"
    if numpy_version is None:
        return "numpy is not installed"
    if int(numpy_version.split(".")[0]) >= 2:
        return f"it has numpy {numpy_version}, with which the server's answers are empty (numpy<2)"
    if not found["libpython_found"]:
        return (
            f"its Python {found['python_version']} has no shared library, which Triton's python "
            f"backend needs (Debian and Ubuntu: apt-get install libpython{found['python_version']})"
        )
    return None


def _check_files(folder: Path, environment: ServerEnvironment) -> None:
    if not environment.binary.is_file():
        raise ServeError(
            f"server environment {folder}: its nvidia-pytriton has no {environment.binary}: "
            "run `make setup`"
        )
    if not environment.stub.is_file():
        stubs = sorted(path.name for path in environment.stub.parents[1].glob("3.*"))
        raise ServeError(
            f"server environment {folder}: nvidia-pytriton has no python backend for Python "
            f"{environment.python_version}, only for {', '.join(stubs)}: run `make setup` with one "
            "of these"
        )
