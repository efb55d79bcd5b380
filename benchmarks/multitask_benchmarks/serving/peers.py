"""Other servers with the same weights, each in an environment of its own.

`benchmarks/peers/NAME/` holds a `server.py`, the `requirements.txt` of its environment, and a
`peer.yaml` where it is asked in another way than most. The environment is made by
`python -m multitask_benchmarks peers install NAME`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from multitask_benchmarks.serving.processes import children
from multitask_benchmarks.serving.served import Served
from multitask_benchmarks.serving.web import HttpForm
from multitask_core.config import Section, load
from multitask_core.errors import ConfigError, ServeError
from multitask_serve.ports import Ports, choose_ports
from multitask_serve.process import GuardedProcess

FOLDER = Path(__file__).resolve().parents[2] / "peers"
# Beside the toolkit's own environments, and like them not under version control.
ENVIRONMENTS = FOLDER.parents[1] / ".venv-peers"
# Our model computes at this niceness (triton_models/multitask/1/model.py), so that the load
# generator gets the CPU before it: so it does before the peers.
NICENESS = 10
_GRACE_S = 5.0
_POLL_S = 0.05
_LINES_SHOWN = 12
_PACKAGES = (
    "bentoml", "fastapi", "litserve", "numpy", "ray", "tokenizers", "torch", "torchserve",
    "transformers", "uvicorn",
)  # fmt: skip
_PEER = re.compile(
    r"(?P<name>\w+)(?::(?P<precision>\w+)(?::(?P<workers>[1-9]\d*)x(?P<threads>[1-9]\d*))?)?"
)
_PROBE = """
import importlib.metadata as m, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


class Interface(Section):
    """How a peer is asked; its `peer.yaml` says what differs from FastAPI and LitServe."""

    predict: str = "/predict"
    "Path of POST."
    health: str = "/health"
    "Path of GET that answers 200 once requests are."
    field: str = "text"
    "Where a request's JSON has its text."
    listed: bool = False
    "Whether texts and answers come as lists, here of one."
    needs: tuple[str, ...] = ()
    "Programs that must be on PATH."

    @classmethod
    def read(cls, folder: Path) -> Interface:
        """A peer's own, from its folder under benchmarks/peers; raises ConfigError."""
        path = folder / "peer.yaml"
        return load(cls, path if path.exists() else None)

    @property
    def form(self) -> HttpForm:
        """What the load generator has to know of it."""
        return HttpForm(self.predict, self.field, self.listed)


class Peer(NamedTuple):
    """name: the folder under benchmarks/peers; python: the interpreter that runs its server.

    workers, threads: processes with a model and threads in each; 0 leaves them to the server.
    """

    name: str
    precision: str
    python: Path
    workers: int = 0
    threads: int = 0

    @property
    def title(self) -> str:
        """Its row in tables."""
        shape = f" {self.workers}x{self.threads}" if self.workers else ""
        return f"{self.name} {self.precision}{shape}"

    @property
    def options(self) -> list[str]:
        """Its server's own options."""
        shape = ["--workers", str(self.workers), "--threads", str(self.threads)]
        return ["--precision", self.precision, *(shape if self.workers else [])]


def known_peers(folder: Path = FOLDER) -> list[str]:
    """Names of the peers; none outside of a checkout."""
    return sorted(path.parent.name for path in folder.glob("*/server.py"))


def parse_peer(value: str, folder: Path = FOLDER) -> Peer:
    """Read NAME[:PRECISION[:WORKERSxTHREADS]][=PYTHON]; raises ConfigError with what is allowed.

    Without PYTHON it is that of the environment which `peers install NAME` makes.
    """
    left, _, python = value.partition("=")
    match = _PEER.fullmatch(left)
    known = known_peers(folder)
    if not match or match["name"] not in known:
        raise ConfigError(
            f"--peer {value!r}: write NAME[:PRECISION[:WORKERSxTHREADS]][=PYTHON] with NAME one of "
            f"{', '.join(known) or 'none: the peers stand in a checkout of the source alone'}"
        )
    if python and not Path(python).is_file():
        raise ConfigError(
            f"--peer {value!r}: there is no interpreter {python}; make an environment with "
            f"{folder / match['name'] / 'requirements.txt'} and give its bin/python, or give none "
            f"after `python -m multitask_benchmarks peers install {match['name']}`"
        )
    found = Path(python).absolute() if python else environment(match["name"])
    shape = (int(match["workers"] or 0), int(match["threads"] or 0))
    return Peer(match["name"], match["precision"] or "fp32", found, *shape)


def environment(name: str) -> Path:
    """The interpreter of a peer's environment as `peers install` makes it, there or not."""
    return ENVIRONMENTS / name / "bin" / "python"


def why_not(peer: Peer, interface: Interface) -> str:
    """Why a peer cannot run on this machine, "" where it can."""
    if not peer.python.is_file():
        return (
            f"no environment; `python -m multitask_benchmarks peers install {peer.name}` makes it"
        )
    missing = [program for program in interface.needs if not shutil.which(program)]
    return f"no {' and no '.join(missing)} on PATH" if missing else ""


@contextmanager
def serve_peer(peer: Peer, checkpoint: Path, *, timeout_s: float = 240.0) -> Iterator[Served]:
    """Run the peer's server on a free port until the block ends; raises ServeError.

    All of it is as nice as our own model is.
    """
    interface = Interface.read(FOLDER / peer.name)
    if reason := why_not(peer, interface):
        raise ServeError(f"the peer {peer.title} cannot run: {reason}")
    packages = package_versions(peer.python, _PACKAGES)
    port = choose_ports("127.0.0.1", Ports()).http
    command = [
        "nice", "-n", str(NICENESS), str(peer.python), str(FOLDER / peer.name / "server.py"),
        "--checkpoint", str(checkpoint.resolve()), "--port", str(port), *peer.options,
    ]  # fmt: skip
    facts = {"kind": "http", "niceness": NICENESS, "packages": packages}
    with tempfile.NamedTemporaryFile() as output:
        begin_s = time.perf_counter()
        process = GuardedProcess(
            command, environ=_environ(), grace_s=_GRACE_S, own_group=True, output=output
        )
        try:
            if failure := _failure(process, port, interface.health, time.monotonic() + timeout_s):
                said = Path(output.name).read_text("utf-8", "replace").splitlines()[-_LINES_SHOWN:]
                told = "its last lines:\n" + "\n".join(said) if said else "it said nothing"
                raise ServeError(f"the peer {peer.title} {failure}; {told}")
            ready_s = time.perf_counter() - begin_s
            # Below its guard stands the server with all its workers.
            pid = children(process.pid)[0]
            url = f"127.0.0.1:{port}"
            yield Served(peer.title, url, "", pid, facts, interface.form, ready_s)
        finally:
            process.terminate()
            process.wait()
            process.close()


def package_versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Python's and the packages' versions in another environment; those that are there."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        command = [str(python), "-I", "-c", _PROBE, *names]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found
    return {}


def _environ() -> dict[str, str]:
    """No hub: the checkpoint is local. No variable of this environment's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _failure(process: GuardedProcess, port: int, health: str, deadline_s: float) -> str:
    """Wait until the peer answers; returns what happened instead, "" where it does."""
    while not _answers(port, health):
        if (status := process.poll()) is not None:
            return f"ended with status {status}"
        if time.monotonic() > deadline_s:
            return "is not ready in time"
        time.sleep(_POLL_S)
    return ""


def _answers(port: int, health: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", health)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
