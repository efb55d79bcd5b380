"""A server under test: where it answers and which process to watch."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitask_benchmarks.serving import counters
from multitask_benchmarks.serving.endpoint import Endpoint
from multitask_benchmarks.serving.processes import find
from multitask_benchmarks.serving.web import HttpEndpoint, HttpForm
from multitask_benchmarks.serving.wire import GrpcEndpoint, served_config
from multitask_client import Client
from multitask_core import manifest
from multitask_core.artifact import KIND
from multitask_core.errors import ConfigError, ServeError
from multitask_core.signature import TEXT_MODEL
from multitask_serve import Ports, TritonServer

TRITON = "Triton"


@dataclass(frozen=True)
class Served:
    """name: its row in tables; url: host:port; pid: the root of its processes, 0 where they are not
    this run's: their CPU and memory are not watched.

    metrics_url: the Prometheus page, "" where it has none. facts: JSON-ready, for the result file.
    form: how it is asked over HTTP; None is Triton's text model over gRPC. ready_s: from its start
    until it said that it was ready.
    """

    name: str
    url: str
    metrics_url: str
    pid: int
    facts: dict[str, Any] = field(default_factory=dict)
    form: HttpForm | None = None
    ready_s: float = 0.0

    def endpoint(self, texts: Sequence[str]) -> Endpoint:
        """Requests with these texts."""
        if self.form is None:
            return GrpcEndpoint(self.url, texts)
        return HttpEndpoint(self.url, texts, self.form)


def parse_repository(value: str) -> tuple[str, Path]:
    """Read [NAME=]DIR; without a name the row is called Triton. Raises ConfigError."""
    left, equals, right = value.rpartition("=")
    name, folder = (left, Path(right)) if equals else (TRITON, Path(value))
    if not (folder / TEXT_MODEL).is_dir():
        raise ConfigError(
            f"--repository {value!r}: there is no model {TEXT_MODEL!r} in {folder}; write one with "
            "`python -m multitask_export --repository DIR`"
        )
    return name, folder


def parse_url(value: str) -> tuple[str, str]:
    """Read [NAME=]HOST:PORT; without a name the row is called Triton. Raises ConfigError."""
    name, _, url = value.rpartition("=")
    if not re.fullmatch(r".+:\d+", url):
        raise ConfigError(f"--url {value!r}: write HOST:PORT of its gRPC endpoint, localhost:8001")
    return name or TRITON, url


def running_triton(name: str, url: str) -> Served:
    """A Triton that runs already, somewhere; raises CallError where none answers."""
    return Served(name, url, "", 0, answering(url))


@contextmanager
def serve_triton(name: str, repository: Path, target: str = "embedded") -> Iterator[Served]:
    """Serve a repository on free ports until the block ends; raises ServeError."""
    begin_s = time.perf_counter()
    with TritonServer(repository, target, Ports()) as server:
        yield served_by(name, server, time.perf_counter() - begin_s)


def served_by(name: str, server: TritonServer, ready_s: float = 0.0) -> Served:
    """A running server, found among this process's children by its port."""
    pid = find(os.getpid(), f"--grpc-port={server.ports.grpc}")
    if pid is None:
        raise ServeError(f"no process below this one serves {server.grpc_url}")
    found = answering(server.grpc_url)
    found |= identity(server.repository, server.target, found["version"])
    found["engine"] = counters.engine(counters.read_page(server.metrics_url), found["version"])
    return Served(name, server.grpc_url, server.metrics_url, pid, found, ready_s=ready_s)


def answering(url: str) -> dict[str, Any]:
    """What a server says of itself: its version, the model's, and what decides under load."""
    config = served_config(url)
    with Client(url) as client:
        triton = client.server_version()
    return {**facts(config), "version": live_version(config), "triton": triton}


def live_version(config: Mapping[str, Any]) -> str:
    """The version that answers: the newest of those that the model's config names."""
    named = config.get("version_policy", {}).get("specific", {}).get("versions", [])
    return str(max(map(int, named), default=""))


def identity(repository: Path, target: str, version: str) -> dict[str, str]:
    """Which artifact is live, and the hash of the text model's config for the target."""
    model = repository / TEXT_MODEL
    own = model / "configs" / f"{target}.pbtxt"
    return {
        "artifact": manifest.read(model / version, KIND).identity,
        "config_sha256": manifest.sha256(own if own.is_file() else model / "config.pbtxt"),
    }


def facts(config: dict[str, Any]) -> dict[str, Any]:
    """What of a model's config decides how it behaves under load."""
    parameters = config.get("parameters", {})
    queue = config.get("dynamic_batching", {}).get("default_queue_policy", {})
    return {
        "kind": "triton",
        "instances": sum(int(one.get("count", 1)) for one in config.get("instance_group", [])),
        "max_batch_size": config.get("max_batch_size"),
        "queue_timeout_ms": int(queue.get("default_timeout_microseconds", 0)) / 1e3 or None,
        "max_queue_size": queue.get("max_queue_size"),
        "response_cache": bool(config.get("response_cache", {}).get("enable")),
        "parameters": {
            key: value.get("string_value", "")
            for key, value in sorted(parameters.items())
            if key != "classes"
        },
    }
