"""A Triton server as a context manager.

    with TritonServer(Path("triton_models")) as server:
        client = connect(server.grpc_url)

The command line over it is `python -m multitask_serve start`.
"""

from __future__ import annotations

import http.client
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from multitask_core.errors import ServeError
from multitask_serve import log, records
from multitask_serve.ports import Ports, accepts, choose_ports, client_host
from multitask_serve.process import GuardedProcess
from multitask_serve.repository import find_models
from multitask_serve.runtime import default_state_folder, prepare_runtime
from multitask_serve.security import LOOPBACK, Tls, admin_token, restrictions
from multitask_serve.trace import Trace

_POLL_S = 0.05
# A model that failed is reported this much later: others that fail with it get their say.
_SETTLE_S = 1.0
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  where the system keeps it
# What Triton takes beyond the drain timeout to unload its models.
_UNLOAD_S = 10.0


class TritonServer:
    """Serves a repository from `start` to `stop`, or for a `with` block.

    Args:
        repository: the model repository, served in place and not written to.
        target: `embedded` runs the server environment's Triton, others the `tritonserver` on PATH.
        ports: 0 picks a free one.
        host: the address to listen on.
        server_env: the server environment; None searches for it.
        ready_timeout_s: how long the models may take to load.
        drain_timeout_s: how long requests in flight may take when the server stops.
        tls: encrypt gRPC; HTTP and metrics then listen on this machine alone.
        trace: send traces of requests to an OpenTelemetry collector.
        server_args: further options of tritonserver.
        state: where logs and records are kept; None is ~/.cache/multitask-transformer.
    """

    def __init__(
        self,
        repository: Path,
        target: str = "embedded",
        ports: Ports = Ports(),  # noqa: B008  immutable
        *,
        host: str = "127.0.0.1",
        server_env: Path | None = None,
        ready_timeout_s: float = 120.0,
        drain_timeout_s: float = 30.0,
        tls: Tls | None = None,
        trace: Trace | None = None,
        server_args: Sequence[str] = (),
        state: Path | None = None,
    ) -> None:
        self.repository = repository.absolute()
        self.target = target
        self.host = host
        self.ready_timeout_s = ready_timeout_s
        self.drain_timeout_s = drain_timeout_s
        self.models: list[str] = []
        self.tls = tls
        self.token = admin_token()
        self._trace = trace
        self._asked_ports = ports
        self._server_env = server_env
        self._server_args = list(server_args)
        self._state = state or default_state_folder()
        self._process: GuardedProcess | None = None
        self._record: Path | None = None

    @property
    def http_host(self) -> str:
        """Where HTTP and metrics listen: Triton has no TLS for them."""
        return self.host if self.tls is None else LOOPBACK

    @property
    def grpc_url(self) -> str:
        """host:port, as tritonclient takes it."""
        return f"{client_host(self.host)}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """host:port, as tritonclient takes it."""
        return f"{client_host(self.http_host)}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        """The full address of the Prometheus page."""
        return f"http://{client_host(self.http_host)}:{self.ports.metrics}/metrics"

    @property
    def log_path(self) -> Path:
        """Triton's whole log."""
        return self._log.path

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until every model is ready; ServeError when one is not."""
        self.models = find_models(self.repository, self.target)
        runtime = prepare_runtime(self.target, self._state, self._server_env)
        self.ports = choose_ports(self.host, self._asked_ports, self.http_host)
        self._log = log.LogFile(log.new_log(self._state / "logs"))
        # A stub that is killed leaves its shared memory: a prefix of our own makes it known.
        shm_prefix = f"multitask_{secrets.token_hex(6)}_"
        shm_option = f"--backend-config=python,shm-region-prefix-name={shm_prefix}"
        with self._log.path.open("wb") as output:
            self._process = GuardedProcess(
                [*runtime.command, *self._options(), shm_option],
                environ=runtime.environ,
                grace_s=self.drain_timeout_s + _UNLOAD_S,
                own_group=True,
                leftovers=f"{_SHARED_MEMORY}/{shm_prefix}*",
                output=output,
                # The stub puts this folder first on sys.path: it must hold no modules.
                cwd=self._log.path.parent,
            )
        try:
            self._wait_ready(time.monotonic() + self.ready_timeout_s)
            self._record = self._write_record()
        except BaseException:
            self._end(kill=True)
            raise

    def poll(self) -> list[str]:
        """Return new warnings and errors of the server; raise ServeError when it has ended."""
        assert self._process is not None, "poll before start"
        status = self._process.poll()
        new = self._log.read_new()
        if status is not None:
            raise ServeError(
                f"tritonserver ended with status {status} "
                f"({log.last_error(self._log.lines)}); its log is {self.log_path}"
            )
        return self._problems(new)

    def stop(self) -> None:
        """Let requests in flight finish, stop the server and wait until nothing of it is left."""
        self._end(kill=False)

    def kill(self) -> None:
        """End the server at once; safe in a signal handler."""
        if self._process is not None:
            self._process.kill()

    def _end(self, *, kill: bool) -> None:
        if self._record is not None:  # first, so that nobody publishes to a server that stops
            self._record.unlink(missing_ok=True)
            self._record = None
        process = self._process
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        process.wait()
        process.close()
        self._process = None

    def _options(self) -> list[str]:
        return [
            f"--model-repository={self.repository}",
            f"--model-config-name={self.target}",
            "--disable-auto-complete-config",
            # The strict kind calls the server not ready whenever a version loads or unloads,
            # and a load balancer would leave it in the middle of every publish.
            "--strict-readiness=false",
            "--exit-on-error=true",
            f"--exit-timeout-secs={self.drain_timeout_s:.0f}",
            # Loading a version is asked for, with the token: nothing is picked up by itself.
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self.models),
            *restrictions(self.token),
            *(self.tls.options() if self.tls else ()),
            *(self._trace.options() if self._trace else ()),
            "--metrics-config=summary_latencies=true",
            f"--http-address={self.http_host}",
            f"--metrics-address={self.http_host}",
            f"--grpc-address={self.host}",
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            *self._server_args,
        ]

    def _wait_ready(self, deadline_s: float) -> None:
        assert self._process is not None
        failed_at_s: float | None = None
        while True:
            ended = self._process.poll() is not None
            new = self._log.read_new()
            if failed_at_s is None and log.find_failures(new):
                failed_at_s = time.monotonic()
            settled = failed_at_s is not None and time.monotonic() - failed_at_s > _SETTLE_S
            if ended or settled:
                raise ServeError(self._why_not())
            if failed_at_s is None and self._is_ready():
                return
            if time.monotonic() > deadline_s:
                raise ServeError(self._too_slow())
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        """Whether server and models report ready and all three ports answer."""
        models = (f"/v2/models/{name}/ready" for name in self.models)
        return all(map(self._is_ok, ("/v2/health/ready", *models))) and self._accepts()

    def _is_ok(self, path: str) -> bool:
        connection = http.client.HTTPConnection(self.http_url, timeout=5.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _accepts(self) -> bool:
        return accepts(client_host(self.host), self.ports.grpc) and accepts(
            client_host(self.http_host), self.ports.metrics
        )

    def _write_record(self) -> Path:
        mode = "" if self.tls is None else "mutual" if self.tls.client_ca else "tls"
        return records.write(
            self._state,
            repository=str(self.repository),
            target=self.target,
            grpc=self.grpc_url,
            http=self.http_url,
            metrics=self.metrics_url,
            token=self.token,
            tls=mode,
            certificate=str(self.tls.certificate.absolute()) if self.tls else "",
        )

    def _why_not(self) -> str:
        failures = log.find_failures(self._log.lines)
        if failures:
            reasons = "\n".join(f"model {name}: {reason}" for name, reason in failures.items())
            return f"{reasons}\nthe server's log is {self.log_path}"
        return (
            f"tritonserver did not start: {log.last_error(self._log.lines)}; "
            f"its log is {self.log_path}"
        )

    def _too_slow(self) -> str:
        waiting = ", ".join(log.still_loading(self._log.lines)) or "none"
        return (
            f"not ready after {self.ready_timeout_s:g} s (models still loading: {waiting}): raise "
            f"--ready-timeout, or see the server's log {self.log_path}"
        )

    def problems(self) -> list[str]:
        """Return the warnings and errors since the start."""
        return self._problems(list(self._log.lines))

    def _problems(self, lines: list[str]) -> list[str]:
        without_gpu = self.target in ("embedded", "cpu")
        return [
            f"triton {record.source}: {record.message}"
            for record in filter(None, map(log.parse, lines))
            if record.is_problem and not (without_gpu and record.is_harmless_without_gpu)
        ]
