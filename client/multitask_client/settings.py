"""How a client connects: address, TLS, headers, retries, and gRPC's options for all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from multitask_core import signature
from multitask_core.errors import ConfigError

# gRPC allows five attempts a call and cuts more silently.
MAX_RETRIES = 4
_UNLIMITED_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Tls:
    """PEM files; all empty means TLS with the system's certificate authorities.

    private_key and certificate_chain identify the client to a server that asks for it.
    """

    root_certificates: Path | None = None
    private_key: Path | None = None
    certificate_chain: Path | None = None

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ConfigError("a client certificate needs both its private key and its chain")

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Contents of the three files; raises ConfigError for one that cannot be read."""
        return (
            _read(self.root_certificates),
            _read(self.private_key),
            _read(self.certificate_chain),
        )


@dataclass(frozen=True)
class Settings:
    """Everything a transport needs; raises ConfigError for a value that cannot work.

    url: host:port of the gRPC endpoint, or a gRPC target such as `dns:///name:8001`.
    deadline_s: seconds that one call of the client may take, retries and all.
    max_batch: most texts in one request; 0 takes what the server's model allows.
    in_flight: most requests of one call under way at once.
    retries: further attempts after UNAVAILABLE, at most 4, 0.1 s apart and doubling.
    headers: sent with every request, for gateways and restricted endpoints.
    spread: spread requests over all addresses behind the name instead of keeping to one.
    """

    url: str = "localhost:8001"
    model: str = signature.TEXT_MODEL
    model_version: str = ""
    deadline_s: float = 10.0
    max_batch: int = 0
    in_flight: int = 8
    retries: int = 3
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    spread: bool = False

    def __post_init__(self) -> None:
        _check_url(self.url)
        for allowed, what in (
            (0 < self.deadline_s < math.inf, f"deadline_s={self.deadline_s}: seconds above 0"),
            (self.max_batch >= 0, f"max_batch={self.max_batch}: 0 or more texts"),
            (self.in_flight >= 1, f"in_flight={self.in_flight}: at least one request"),
            (0 <= self.retries <= MAX_RETRIES, f"retries={self.retries}: 0 to {MAX_RETRIES}"),
        ):
            if not allowed:
                raise ConfigError(what)

    def metadata(self) -> dict[str, str]:
        """Headers as gRPC takes them: names in lower case."""
        return {name.lower(): value for name, value in self.headers.items()}

    def channel_args(self) -> list[tuple[str, str | int]]:
        """gRPC's channel options, whole: given any, tritonclient leaves out its own."""
        return [
            ("grpc.service_config", json.dumps(self._service_config())),
            ("grpc.max_send_message_length", _UNLIMITED_BYTES),
            ("grpc.max_receive_message_length", _UNLIMITED_BYTES),
            # A server counts idle pings that come more often than every 5 minutes as an attack
            # and hangs up (GOAWAY): ping later than that, and only while a call is under way.
            ("grpc.keepalive_time_ms", 310_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 0),
            ("grpc.http2.max_pings_without_data", 2),
            # Load balancers forget a silent connection after about 350 s, without a word. Leaving
            # first costs one reconnect and saves a call that would wait for its deadline.
            ("grpc.client_idle_timeout_ms", 240_000),
            # A server that restarts is back in seconds; the default waits up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]

    def _service_config(self) -> dict[str, object]:
        """Retries and balancing, in the terms of gRPC's service config (gRFC A6).

        Predicting changes nothing on the server, so a repeat is safe. Under overload the
        throttle stops repeats once about half the calls fail.
        """
        method: dict[str, object] = {"name": [{"service": "inference.GRPCInferenceService"}]}
        config: dict[str, object] = {"methodConfig": [method]}
        if self.retries:
            method["retryPolicy"] = {
                "maxAttempts": self.retries + 1,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
            config["retryThrottling"] = {"maxTokens": 100, "tokenRatio": 1}
        if self.spread:
            config["loadBalancingConfig"] = [{"round_robin": {}}]
        return config


def _check_url(url: str) -> None:
    if url.startswith(("http://", "https://", "grpc://")):
        raise ConfigError(
            f"{url!r}: give the gRPC endpoint as host:port, such as localhost:8001; "
            "for an encrypted connection add tls"
        )
    if not url.strip() or url != url.strip():
        raise ConfigError(f"{url!r} is no address: give host:port, such as localhost:8001")


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise ConfigError(f"cannot read the PEM file {path}: {error.strerror}") from error
