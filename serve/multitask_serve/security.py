"""What a server lets whom do: TLS, the admin token, and the options of tritonserver that say so.

Loading and unloading models, shared memory, tracing and logging are closed over the network to all
who do not send the admin token. Health, metadata, configs, statistics and inference are open.
Triton has no TLS for HTTP: where gRPC has it, HTTP and metrics listen on this machine alone.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from multitask_core.errors import ConfigError

TOKEN_VARIABLE = "MULTITASK_ADMIN_TOKEN"  # noqa: S105  a variable's name
HEADER = "multitask-admin"
# Triton puts this before the name of a restricted protocol's header, on gRPC alone.
GRPC_HEADER = f"triton-grpc-protocol-{HEADER}"
RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
LOOPBACK = "127.0.0.1"

_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,}")


@dataclass(frozen=True)
class Tls:
    """The server's PEM files; client_ca: only clients with a certificate of it are let in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
                raise ConfigError(f"cannot read the PEM file {path}: check --tls-cert, --tls-key")

    @classmethod
    def from_flags(cls, cert: Path | None, key: Path | None, ca: Path | None) -> Tls | None:
        """The TLS that flags ask for, None without any; ConfigError for half of it."""
        if cert is None and key is None and ca is None:
            return None
        if cert is None or key is None:
            raise ConfigError("TLS needs both --tls-cert and --tls-key; --tls-client-ca adds to it")
        return cls(cert, key, ca)

    def options(self) -> list[str]:
        """Options of tritonserver."""
        options = [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.certificate.absolute()}",
            f"--grpc-server-key={self.key.absolute()}",
        ]
        if self.client_ca is not None:
            options += [
                "--grpc-use-ssl-mutual=true",
                f"--grpc-root-cert={self.client_ca.absolute()}",
            ]
        return options


def admin_token() -> str:
    """The token of $MULTITASK_ADMIN_TOKEN, or a new random one; ConfigError for a weak one."""
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return secrets.token_urlsafe(32)
    if not _TOKEN.fullmatch(given):
        raise ConfigError(
            f"${TOKEN_VARIABLE} must be at least 16 letters, digits or _ . ~ -; make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`, or unset it and have "
            "one made at the start"
        )
    return given


def restrictions(token: str) -> list[str]:
    """Options of tritonserver that close what RESTRICTED names to all without the token."""
    closed = f"{','.join(RESTRICTED)}:{HEADER}={token}"
    return [f"--grpc-restricted-protocol={closed}", f"--http-restricted-api={closed}"]
