"""A running server's administration over gRPC: load, unload, states, statistics.

The one place of this package that touches tritonclient, which has no types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from multitask_client.errors import CallError
from multitask_client.protocol import Infer
from multitask_client.settings import Settings, Tls
from multitask_client.transport import SyncTransport
from multitask_core import signature
from multitask_core.errors import ServeError
from multitask_serve.security import GRPC_HEADER, TOKEN_VARIABLE

T = TypeVar("T")

READY = "READY"
_GONE = ("", "UNAVAILABLE")
_CALL_S = 10.0
_PROBE_S = 60.0


@dataclass(frozen=True)
class Address:
    """How a server is reached. target: what it serves, "" where that is not known."""

    url: str
    token: str = ""
    tls: Tls | None = None
    target: str = ""

    def settings(self, model: str = signature.TEXT_MODEL, deadline_s: float = _PROBE_S) -> Settings:
        """Settings of a client that asks one of the server's models."""
        return Settings(self.url, model, deadline_s=deadline_s, tls=self.tls)


@dataclass(frozen=True)
class Counters:
    """Counters of one version since it was loaded; times are sums in ms."""

    requests: int
    failures: int
    texts: int
    executions: int
    queue_ms: float
    compute_ms: float

    @property
    def mean_batch(self) -> float:
        """Texts in one execution."""
        return self.texts / self.executions if self.executions else 0.0


@dataclass
class Admin:
    """One server; every failed call is a ServeError.

    load_timeout_s: how long a model may take to load, warm-up and all.
    """

    address: Address
    load_timeout_s: float = 600.0
    _client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # No retries: a load that is asked for twice runs twice.
        settings = Settings(self.address.url, tls=self.address.tls, retries=0)
        credentials = grpc.ssl_channel_credentials(*settings.tls.read()) if settings.tls else None
        self._client = tritonclient.grpc.InferenceServerClient(
            url=settings.url, creds=credentials, channel_args=settings.channel_args()
        )

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def load(self, model: str) -> None:
        """Load what the model's config names now; returns when it is served, versions it no longer
        names finish their requests in the background.
        """
        self._call(f"load {model}", self._client.load_model, self.load_timeout_s, model)

    def unload(self, model: str) -> None:
        """Unload a model; one that is not loaded is no error."""
        self._call(f"unload {model}", self._client.unload_model, self.load_timeout_s, model)

    def states(self) -> Mapping[tuple[str, int], str]:
        """(model, version) → state, for every version that the server knows."""
        reply = self._call("list models", self._client.get_model_repository_index, _CALL_S)
        return {(one.name, int(one.version)): str(one.state) for one in reply.models if one.version}

    def ready_versions(self, model: str) -> list[int]:
        """The versions of a model that answer now."""
        states = self.states().items()
        return sorted(number for (name, number), state in states if (name, state) == (model, READY))

    def is_gone(self, model: str, version: int) -> bool:
        """Whether a version has answered its last request and is unloaded."""
        return self.states().get((model, version), "") in _GONE

    def calls_tensor_model(self) -> bool:
        """Whether the text model runs its encoder in the tensor model of its own version."""
        reply = self._call(
            "read the text model's config",
            self._client.get_model_config,
            _CALL_S,
            signature.TEXT_MODEL,
        )
        return bool(reply.config.parameters["encoder"].string_value == "bls")

    def counters(self) -> Mapping[tuple[str, int], Counters]:
        """(model, version) → its counters."""
        reply = self._call("read statistics", self._client.get_inference_statistics, _CALL_S)
        return {(one.name, int(one.version)): _counters(one) for one in reply.model_stats}

    def health(self) -> tuple[bool, bool, str]:
        """Whether the server lives, whether its text model is ready, and Triton's version."""
        live = self._call("ask for health", self._client.is_server_live, _CALL_S)
        model = signature.TEXT_MODEL
        ready = self._call("ask for health", self._client.is_model_ready, _CALL_S, model)
        reply = self._call("read metadata", self._client.get_server_metadata, _CALL_S)
        return bool(live), bool(ready), str(reply.version)

    def answering_version(self, text: str) -> int:
        """Ask the text model one text; return the version that answered."""
        transport = SyncTransport(self.address.settings())
        try:
            return int(transport.infer(Infer((text,), (0,)), _PROBE_S).version)
        except CallError as error:
            raise ServeError(f"the server does not answer: {error}") from error
        finally:
            transport.close()

    def _call(self, what: str, call: Callable[..., T], timeout_s: float, *arguments: str) -> T:
        headers = {GRPC_HEADER: self.address.token} if self.address.token else None
        try:
            return call(*arguments, headers=headers, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise ServeError(_explain(self.address.url, what, error)) from error


def find_tls(
    ca: Path | None, certificate: Path | None, key: Path | None, served: str = ""
) -> Tls | None:
    """TLS as flags ask for it; served: the certificate that the server's own record names."""
    root = ca or (Path(served) if served else None)
    return Tls(root, key, certificate) if root or certificate or key else None


def _explain(url: str, what: str, error: InferenceServerException) -> str:
    message = " ".join(str(error.message()).split())
    if "restricted" in message:
        return (
            f"{url}: cannot {what}: the server wants its admin token, and got none or another: set "
            f"${TOKEN_VARIABLE} to the one it was started with"
        )
    return f"{url}: cannot {what}: {message}"


def _counters(one: Any) -> Counters:  # noqa: ANN401  a ModelStatistics
    figures = one.inference_stats
    computing = ("compute_input", "compute_infer", "compute_output")
    return Counters(
        requests=figures.success.count + figures.fail.count,
        failures=figures.fail.count,
        texts=one.inference_count,
        executions=one.execution_count,
        queue_ms=figures.queue.ns / 1e6,
        compute_ms=sum(getattr(figures, part).ns for part in computing) / 1e6,
    )
