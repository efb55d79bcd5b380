"""Other servers with the same weights, each in an environment of its own.

`benchmarks/peers/NAME/` holds a `server.py` and the `requirements.txt` of its environment:

    python3 -m venv VENV && VENV/bin/pip install -r benchmarks/peers/NAME/requirements.txt
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from multitask_benchmarks.serving.processes import find
from multitask_benchmarks.serving.served import Served
from multitask_core.errors import ConfigError, ServeError
from multitask_serve.ports import Ports, choose_ports
from multitask_serve.process import GuardedProcess

FOLDER = Path(__file__).resolve().parents[2] / "peers"
_GRACE_S = 5.0
_POLL_S = 0.2
_PACKAGES = ("fastapi", "litserve", "numpy", "tokenizers", "torch", "transformers", "uvicorn")
_PROBE = """
import importlib.metadata as m, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


class Peer(NamedTuple):
    """name: the folder under benchmarks/peers; python: the interpreter that runs its server."""

    name: str
    precision: str
    python: Path

    @property
    def title(self) -> str:
        """Its row in tables."""
        return f"{self.name} {self.precision}"


def parse_peer(value: str, folder: Path = FOLDER) -> Peer:
    """Read NAME[:PRECISION]=PYTHON; raises ConfigError with what is allowed."""
    left, _, python = value.partition("=")
    name, _, precision = left.partition(":")
    known = sorted(path.parent.name for path in folder.glob("*/server.py"))
    if name not in known or not python:
        raise ConfigError(
            f"--peer {value!r}: write NAME[:PRECISION]=PYTHON with NAME one of "
            f"{', '.join(known) or 'none: the peers stand in a checkout of the source alone'}"
        )
    if not Path(python).is_file():
        requirements = folder / name / "requirements.txt"
        raise ConfigError(
            f"--peer {value!r}: there is no interpreter {python}; make an environment with "
            f"{requirements} and give its bin/python"
        )
    return Peer(name, precision or "fp32", Path(python).absolute())


@contextmanager
def serve_peer(peer: Peer, checkpoint: Path, *, timeout_s: float = 120.0) -> Iterator[Served]:
    """Run the peer's server on a free port until the block ends; raises ServeError."""
    port = choose_ports("127.0.0.1", Ports()).http
    log = Path(os.devnull)
    command = [
        str(peer.python), str(FOLDER / peer.name / "server.py"),
        "--checkpoint", str(checkpoint.resolve()), "--port", str(port),
        "--precision", peer.precision,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = GuardedProcess(
            command, environ=_environ(), grace_s=_GRACE_S, own_group=True, output=output
        )
    try:
        _wait(process, port, peer, time.monotonic() + timeout_s)
        pid = find(os.getpid(), str(port))
        assert pid is not None, "a server that answers has a process"
        facts = {"kind": "http", "packages": package_versions(peer.python, _PACKAGES)}
        yield Served(peer.title, f"127.0.0.1:{port}", "", pid, facts)
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


def _wait(process: GuardedProcess, port: int, peer: Peer, deadline_s: float) -> None:
    while not _answers(port):
        status: Any = process.poll()
        if status is not None or time.monotonic() > deadline_s:
            happened = "is not ready in time" if status is None else f"ended with status {status}"
            raise ServeError(
                f"the peer {peer.title} {happened}; run it by hand to see why: {peer.python} "
                f"{FOLDER / peer.name / 'server.py'} --help"
            )
        time.sleep(_POLL_S)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
