"""Triton's text model over gRPC: ready-made ModelInferRequest bytes on bare channels.

A call costs about half of what it does through tritonclient: nothing is built, copied into arrays
or parsed while the clock runs. What is sent and received is the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import serialize_byte_tensor

from multitask_benchmarks.serving.endpoint import Reply
from multitask_client.errors import ServerError, from_status
from multitask_core.prediction import Prediction, entities_from_json
from multitask_core.signature import ENTITIES, LABEL, LABEL_SCORES, TEXT, TEXT_MODEL

_SERVICE = "/inference.GRPCInferenceService/"
_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class GrpcEndpoint:
    """A text model at host:port; every text is one request of shape [1, 1].

    channels: connections over which calls are spread; one carries some thousand calls a second.
    """

    def __init__(
        self,
        url: str,
        texts: Sequence[str],
        *,
        model: str = TEXT_MODEL,
        channels: int = 1,
        deadline_s: float = 60.0,
    ) -> None:
        self.url, self.texts = url, texts
        self.channels, self.deadline_s = channels, deadline_s
        self.requests = [infer_request(model, text) for text in texts]

    async def open(self) -> GrpcConnection:
        """Connect every channel; raises ServerUnavailable when that takes over 30 s."""
        connection = GrpcConnection(self)
        try:
            await asyncio.wait_for(connection.ready(), 30.0)
        except asyncio.TimeoutError as error:
            await connection.close()
            raise from_status("UNAVAILABLE", "no connection within 30 s", self.url) from error
        return connection

    def read(self, reply: bytes) -> Reply:
        """Parse a ModelInferResponse."""
        return read_response(reply, self.url)


class GrpcConnection:
    """Channels of one endpoint, used in turn."""

    def __init__(self, endpoint: GrpcEndpoint) -> None:
        self._endpoint = endpoint
        options = [*_UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        self._channels = [
            grpc.aio.insecure_channel(endpoint.url, options=options)
            for _ in range(endpoint.channels)
        ]
        # Without serialisers, bytes pass through as they are.
        self._calls = [channel.unary_unary(f"{_SERVICE}ModelInfer") for channel in self._channels]
        self._turn = count()

    async def ready(self) -> None:
        """Wait until every channel is connected."""
        for channel in self._channels:
            await channel.channel_ready()

    async def send(self, index: int) -> bytes:
        """Send one request; raises CallError with gRPC's status."""
        call = self._calls[next(self._turn) % len(self._calls)]
        try:
            reply: bytes = await call(
                self._endpoint.requests[index], timeout=self._endpoint.deadline_s
            )
        except grpc.aio.AioRpcError as error:
            raise from_status(
                error.code().name, error.details() or "", self._endpoint.url
            ) from None
        return reply

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels:
            await channel.close()


def infer_request(model: str, text: str) -> bytes:
    """One text as a serialised request, as tritonclient would send it."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name=TEXT, datatype="BYTES", shape=[1, 1])
    data = serialize_byte_tensor(np.array([text.encode()], np.object_))
    request.raw_input_contents.append(data.item())
    message: bytes = request.SerializeToString()
    return message


def read_response(reply: bytes, url: str = "") -> Reply:
    """A serialised response's version, label, its score, and entities."""
    try:
        result = InferResult(service_pb2.ModelInferResponse.FromString(reply))
        label, entities = (result.as_numpy(name).item().decode() for name in (LABEL, ENTITIES))
        score = float(result.as_numpy(LABEL_SCORES).max())
        prediction = Prediction(label, {label: score}, entities_from_json(entities))
    except Exception as error:  # protobuf, numpy and json raise unrelated types
        raise ServerError(f"{url}: an answer cannot be read: {error}", url=url) from error
    return Reply(result.get_response().model_version, prediction)


def served_config(url: str, model: str = TEXT_MODEL) -> dict[str, Any]:
    """The model's config as the server uses it, JSON-ready; raises CallError."""
    with grpc.insecure_channel(url) as channel:
        call = channel.unary_unary(
            f"{_SERVICE}ModelConfig",
            request_serializer=service_pb2.ModelConfigRequest.SerializeToString,
            response_deserializer=service_pb2.ModelConfigResponse.FromString,
        )
        try:
            reply = call(service_pb2.ModelConfigRequest(name=model), timeout=30.0)
        except grpc.RpcError as error:
            raise from_status(error.code().name, error.details() or "", url) from error
    config: dict[str, Any] = json.loads(
        json_format.MessageToJson(reply.config, preserving_proto_field_name=True)
    )
    return config
