"""The server's three ports: those asked for are checked before it starts, 0 picks a free one."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import NamedTuple

from multitask_core.errors import ConfigError, ServeError


class Ports(NamedTuple):
    """Ports of gRPC, HTTP and Prometheus metrics; 0 stands for any free port."""

    grpc: int = 0
    http: int = 0
    metrics: int = 0


def choose_ports(host: str, ports: Ports, http_host: str | None = None) -> Ports:
    """Return `ports` with every 0 replaced; a port that cannot be had is a ServeError.

    http_host: where HTTP and metrics listen, when that is not `host`.
    """
    asked = [port for port in ports if port]
    if len(set(asked)) < len(asked):
        raise ConfigError(f"gRPC, HTTP and metrics need three different ports, got {tuple(ports)}")
    # All three stay bound until the last is chosen, so that no port is picked twice.
    with ExitStack() as stack:
        bound = [
            stack.enter_context(
                _bind(host if name == "grpc" else http_host or host, port, f"--{name}-port")
            )
            for name, port in ports._asdict().items()
        ]
        return Ports(*(sock.getsockname()[1] for sock in bound))


def client_host(host: str) -> str:
    """Return the address under which this machine reaches a server bound to `host`."""
    reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{reachable}]" if ":" in reachable else reachable


def accepts(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Say whether something listens on host:port."""
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=timeout_s):
            return True
    except OSError:
        return False


def _bind(host: str, port: int, flag: str) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"{flag} is {port}: allowed are 0 (any free port) to 65535")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # As the server does: a port whose last connections are in TIME_WAIT counts as free.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ServeError(_explain(error, host, port, flag)) from error
    return sock


def _explain(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken: stop what listens there, "
            f"or give another port with {flag} (0 picks a free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} ({flag}) needs root: give a port from 1024 up, or 0 for a free one"
    return f"cannot listen on {host}:{port}: {error.strerror}: check --host and {flag}"
