"""The command line and environment under which tritonserver runs, embedded or from PATH.

The python backend offers no switches: its interpreter is isolated (no PYTHON* variable counts),
belongs to the `python3` that is first in PATH, and caches bytecode in the model folders. So the
embedded server gets a Python folder of its own, a few links in the state folder, which reads at
its start a module that turns the caching off and adds the server environment's packages. The
repository itself is served, not a copy: a version published later can be loaded, and no weights are
copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from multitask_core.errors import ServeError
from multitask_serve.environment import ServerEnvironment, find_environment

# Raised when what _lay_out writes changes.
_LAYOUT = 2
# Imported by a .pth file, not named sitecustomize: Debian's Python has one of its own before it.
_STARTUP = "multitask_startup"
_STARTUP_CODE = '''"""Read by the server's Python: no __pycache__ in the model repository."""

import site
import sys

sys.dont_write_bytecode = True
for folder in {folders!r}:
    site.addsitedir(folder)
'''


class Runtime(NamedTuple):
    """What starts tritonserver: the head of its command line and its environment variables."""

    command: list[str]
    environ: dict[str, str]


def default_state_folder() -> Path:
    """Return where logs and the server's Python folder are kept: $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "multitask-transformer"


def prepare_runtime(target: str, state: Path, server_env: Path | None) -> Runtime:
    """Return the runtime of the target: the wheel's server for `embedded`, else the one on PATH."""
    if target == "embedded":
        return _embedded(find_environment(server_env), state)
    binary = shutil.which("tritonserver")
    if binary is None:
        raise ServeError(
            f"target {target} needs a Triton server with the onnxruntime backend, and no "
            "tritonserver is on PATH: build the container of Dockerfile.triton and start the "
            "target in it, or serve without one with --target embedded"
        )
    return Runtime([binary], dict(os.environ))


def _embedded(environment: ServerEnvironment, state: Path) -> Runtime:
    folder = _python_folder(environment, state / "server")
    # The stub of Python 3.10 does read PYTHONPATH and its like; the others do not.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["PATH"] = f"{folder / 'python' / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"
    if environment.libpython is not None:
        # Only libpython, from a folder of its own: the server needs no other library path.
        given = environ.get("LD_LIBRARY_PATH")
        own = str(folder / "lib")
        environ["LD_LIBRARY_PATH"] = f"{own}{os.pathsep}{given}" if given else own
    command = [str(environment.binary), f"--backend-directory={folder / 'backends'}"]
    return Runtime(command, environ)


def _python_folder(environment: ServerEnvironment, parent: Path) -> Path:
    """Return the folder of links for this environment, made at first use."""
    startup = _STARTUP_CODE.format(folders=[str(path) for path in environment.site_folders])
    key = hashlib.sha256(f"{_LAYOUT}{environment}{startup}".encode()).hexdigest()[:12]
    folder = parent / key
    if not folder.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=parent, prefix=f".{key}."))
        try:
            _lay_out(stage, environment, startup)
            # Fails when a server started at the same time was first: its folder is the same.
            with contextlib.suppress(OSError):
                stage.rename(folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return folder


def _lay_out(stage: Path, environment: ServerEnvironment, startup: str) -> None:
    """Fill the folder: python/ (a venv by its pyvenv.cfg), backends/python/ and lib/."""
    packages = stage / "python" / "lib" / f"python{environment.python_version}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / f"{_STARTUP}.py").write_text(startup, encoding="utf-8")
    (packages / f"{_STARTUP}.pth").write_text(f"import {_STARTUP}\n", encoding="utf-8")
    (stage / "python" / "pyvenv.cfg").write_text(
        f"home = {environment.home}\ninclude-system-site-packages = false\n", encoding="utf-8"
    )
    _link(environment.python, stage / "python" / "bin" / "python3")
    backend = environment.triton / "backends" / "python"
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        _link(backend / name, stage / "backends" / "python" / name)
    _link(environment.stub, stage / "backends" / "python" / environment.stub.name)
    if environment.libpython is not None:
        _link(environment.libpython, stage / "lib" / environment.libpython.name)


def _link(source: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(source)
