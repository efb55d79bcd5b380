"""A stand-in for Triton, for tests of applications that use the client.

    with FakeServer() as server, Client(server.url) as client:
        client.predict(["anything"])

It is a real gRPC server in this process, so everything but the model is exercised: wire format,
errors, deadlines, retries. A test says what to answer:

    def answer(texts: Sequence[str]) -> list[Prediction]: ...
    FakeServer(answer, classes=("book", "cancel"))
"""

from __future__ import annotations

import json
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from multitask_core import signature
from multitask_core.errors import InputError
from multitask_core.prediction import Prediction, entities_to_json

Answer = Callable[[Sequence[str]], Sequence[Prediction]]


class FakeServer:
    """Serves `answer` as a text model on a free port of this machine.

    answer: texts → predictions; an InputError it raises becomes INVALID_ARGUMENT. The default
        gives every text the first class and no entity.
    classes: of each version, in the order of LABEL_SCORES.
    credentials: grpc.ssl_server_credentials for an encrypted port.

    While it runs: `version` is the one that answers (one of `versions`), `failures` are
    (status, message) pairs that the next requests end in, `delay_s` is added to each request,
    `requests` are the texts of every request that came, `metadata` the last one's headers, `ready`
    is what the health check says.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        classes: Sequence[str] = ("no", "yes"),
        max_batch_size: int = 8,
        model: str = signature.TEXT_MODEL,
        port: int = 0,
        credentials: Any = None,  # noqa: ANN401  grpc.ServerCredentials
    ) -> None:
        self.answer = answer or self._first_class
        self.model, self.max_batch_size = model, max_batch_size
        self.version, self.versions = "1", {"1": tuple(classes)}
        self.failures: deque[tuple[str, str]] = deque()
        self.requests: list[list[str]] = []
        self.config_requests: list[str] = []
        self.metadata: dict[str, str] = {}
        self.delay_s, self.ready = 0.0, True
        # SO_REUSEPORT would let two servers share a port that a test believes free.
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16), options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Service(self), self._server)
        self.port = self._listen(f"127.0.0.1:{port}", credentials)
        self.url = f"127.0.0.1:{self.port}"
        self._server.start()

    def close(self) -> None:
        """Stop at once; requests under way fail."""
        self._server.stop(None).wait()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, address: str, credentials: Any) -> int:  # noqa: ANN401
        port: int = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        return port

    def _first_class(self, texts: Sequence[str]) -> list[Prediction]:
        classes = self.versions[self.version]
        scores = {name: float(name == classes[0]) for name in classes}
        return [Prediction(classes[0], scores, ()) for _ in texts]


class _Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The calls of Triton's service that a client makes, named as the service names them."""

    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake
        self._inferences = self._executions = 0

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: ANN401, ARG002, N802
        ready = self._fake.ready and request.name == self._fake.model
        return service_pb2.ModelReadyResponse(ready=ready)

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        fake = self._fake
        version = request.version or max(fake.versions)
        fake.config_requests.append(request.version)
        self._check_model(request.name, version, context)
        config = model_config_pb2.ModelConfig(name=fake.model, max_batch_size=fake.max_batch_size)
        parameter = config.parameters[signature.CLASSES_PARAMETER]
        parameter.string_value = json.dumps(fake.versions[version])
        return service_pb2.ModelConfigResponse(config=config)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: ANN401, ARG002, N802
        return service_pb2.ServerMetadataResponse(name="triton", version="0.0.0-fake")

    def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: ANN401, ARG002, N802
        reply = service_pb2.ModelStatisticsResponse()
        counted = reply.model_stats.add(name=self._fake.model, version=self._fake.version)
        counted.inference_count = self._inferences
        counted.execution_count = self._executions
        return reply

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        fake = self._fake
        texts = [data.decode() for data in _read_bytes(request.raw_input_contents[0])]
        fake.requests.append(texts)
        fake.metadata = dict(context.invocation_metadata())
        time.sleep(fake.delay_s)
        if fake.failures:
            context.abort(*_status(*fake.failures.popleft()))
        version = request.model_version or fake.version
        self._check_model(request.model_name, version, context)
        if len(texts) > fake.max_batch_size:
            message = f"inference request batch-size must be <= {fake.max_batch_size}"
            context.abort(*_status("INVALID_ARGUMENT", message))
        try:
            predictions = fake.answer(texts)
        except InputError as error:
            context.abort(*_status("INVALID_ARGUMENT", str(error)))
        self._inferences, self._executions = self._inferences + len(texts), self._executions + 1
        wanted = {output.name for output in request.outputs}
        bound = request.parameters[signature.MIN_ENTITY_SCORE].double_param
        if bound:
            predictions = [_above(one, bound) for one in predictions]
        return _infer_response(predictions, version, fake.versions[version], wanted)

    def _check_model(self, name: str, version: str, context: Any) -> None:  # noqa: ANN401
        if name != self._fake.model:
            context.abort(
                *_status("NOT_FOUND", f"Request for unknown model: '{name}' is not found")
            )
        if version not in self._fake.versions:
            message = f"Request for unknown model: '{name}' version {version} is not found"
            context.abort(*_status("NOT_FOUND", message))


def _above(answer: Prediction, bound: float) -> Prediction:
    return replace(answer, entities=tuple(one for one in answer.entities if one.score >= bound))


def _infer_response(
    predictions: Sequence[Prediction], version: str, classes: Sequence[str], wanted: set[str]
) -> Any:  # noqa: ANN401  a ModelInferResponse
    scores = [[one.scores[name] for name in classes] for one in predictions]
    response = service_pb2.ModelInferResponse(model_version=version)
    for name, datatype, width, data in (
        (signature.LABEL, "BYTES", 1, _write_bytes([one.label for one in predictions])),
        (signature.LABEL_SCORES, "FP32", len(classes), np.asarray(scores, np.float32).tobytes()),
        (
            signature.ENTITIES, "BYTES", 1,
            _write_bytes([entities_to_json(one.entities) for one in predictions]),
        ),
    ):  # fmt: skip
        if wanted and name not in wanted:
            continue
        response.outputs.add(name=name, datatype=datatype, shape=[len(predictions), width])
        response.raw_output_contents.append(data)
    return response


def _status(name: str, message: str) -> tuple[Any, str]:
    return grpc.StatusCode[name], message


def _write_bytes(values: Sequence[str]) -> bytes:
    """BYTES on the wire: each value behind its length, 4 bytes little-endian."""
    encoded = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(data)) + data for data in encoded)


def _read_bytes(data: bytes) -> list[bytes]:
    values: list[bytes] = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        values.append(data[4 : 4 + length])
        data = data[4 + length :]
    return values
