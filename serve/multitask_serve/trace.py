"""OpenTelemetry tracing of requests, which Triton does itself."""

from __future__ import annotations

from dataclasses import dataclass

from multitask_core.errors import ConfigError


@dataclass(frozen=True)
class Trace:
    """Where traces go, OTLP over HTTP, and how many: one request in `rate`."""

    url: str
    rate: int = 1000

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"--trace-url {self.url!r}: give the collector's OTLP/HTTP address, such as "
                "http://localhost:4318/v1/traces"
            )
        if self.rate < 1:
            raise ConfigError(f"--trace-rate {self.rate}: 1 traces every request, 1000 one in 1000")

    def options(self) -> list[str]:
        """Options of tritonserver."""
        return [
            "--trace-config=mode=opentelemetry",
            f"--trace-config=opentelemetry,url={self.url}",
            f"--trace-config=rate={self.rate}",
            "--trace-config=level=TIMESTAMPS",
        ]
