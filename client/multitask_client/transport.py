"""The one place that touches tritonclient, which has no types: commands in, checked values out."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from multitask_client.answers import RawAnswer, ServedConfig, Statistics
from multitask_client.errors import CallError, ServerError, from_status
from multitask_client.protocol import Infer, locate
from multitask_client.settings import Settings
from multitask_core.signature import CLASSES_PARAMETER, TEXT


class SyncTransport:
    """Carries single requests over one channel, which threads may share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = tritonclient.grpc.InferenceServerClient(**_channel(settings))

    def infer(self, request: Infer, timeout_s: float) -> RawAnswer:
        """Send one request and wait."""
        arguments = _infer_arguments(self._settings, request, timeout_s)
        try:
            return _raw_answer(self._client.infer(**arguments), self._settings)
        except InferenceServerException as error:
            raise _mapped(error, self._settings, request) from error

    def start(self, request: Infer, timeout_s: float) -> Pending:
        """Send one request without waiting."""
        arguments = _infer_arguments(self._settings, request, timeout_s)
        future: Future[Any] = Future()

        def done(result: object, error: Exception | None) -> None:
            future.set_exception(error) if error else future.set_result(result)

        context = self._client.async_infer(callback=done, **arguments)
        return Pending(request, self._settings, future, context.cancel)

    def fetch_config(self, version: str, timeout_s: float) -> ServedConfig:
        """Config of the model's version, "" for the newest."""
        arguments = _model_arguments(self._settings, version, timeout_s)
        try:
            reply = self._client.get_model_config(**arguments)
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error
        return _served_config(reply.config, self._settings)

    def is_ready(self, timeout_s: float) -> bool:
        """Whether the server says that the model is ready."""
        arguments = _model_arguments(self._settings, self._settings.model_version, timeout_s)
        try:
            return bool(self._client.is_model_ready(**arguments))
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error

    def statistics(self, timeout_s: float) -> Statistics:
        """The model's counters."""
        arguments = _model_arguments(self._settings, self._settings.model_version, timeout_s)
        try:
            return _statistics(self._client.get_inference_statistics(**arguments))
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error

    def server_version(self, timeout_s: float) -> str:
        """Triton's own version."""
        try:
            reply = self._client.get_server_metadata(self._settings.metadata(), False, timeout_s)
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error
        return str(reply.version)

    def close(self) -> None:
        """Close the channel; requests under way are cancelled."""
        self._client.close()


class Pending:
    """A request under way."""

    def __init__(
        self, request: Infer, settings: Settings, future: Future[Any], cancel: Callable[[], None]
    ) -> None:
        self._request, self._settings, self._future = request, settings, future
        self.cancel = cancel

    def result(self) -> RawAnswer:
        """Wait for the answer; gRPC ends the wait at the request's deadline."""
        try:
            return _raw_answer(self._future.result(), self._settings)
        except InferenceServerException as error:
            raise _mapped(error, self._settings, self._request) from error


class AsyncTransport:
    """The same on asyncio; belongs to the event loop in which it was made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = tritonclient.grpc.aio.InferenceServerClient(**_channel(settings))

    async def infer(self, request: Infer, timeout_s: float) -> RawAnswer:
        """Send one request and wait."""
        arguments = _infer_arguments(self._settings, request, timeout_s)
        try:
            return _raw_answer(await self._client.infer(**arguments), self._settings)
        except InferenceServerException as error:
            raise _mapped(error, self._settings, request) from error

    async def fetch_config(self, version: str, timeout_s: float) -> ServedConfig:
        """Config of the model's version, "" for the newest."""
        arguments = _model_arguments(self._settings, version, timeout_s)
        try:
            reply = await self._client.get_model_config(**arguments)
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error
        return _served_config(reply.config, self._settings)

    async def is_ready(self, timeout_s: float) -> bool:
        """Whether the server says that the model is ready."""
        arguments = _model_arguments(self._settings, self._settings.model_version, timeout_s)
        try:
            return bool(await self._client.is_model_ready(**arguments))
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error

    async def statistics(self, timeout_s: float) -> Statistics:
        """The model's counters."""
        arguments = _model_arguments(self._settings, self._settings.model_version, timeout_s)
        try:
            return _statistics(await self._client.get_inference_statistics(**arguments))
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error

    async def server_version(self, timeout_s: float) -> str:
        """Triton's own version."""
        headers = self._settings.metadata()
        try:
            reply = await self._client.get_server_metadata(headers, False, timeout_s)
        except InferenceServerException as error:
            raise _mapped(error, self._settings) from error
        return str(reply.version)

    async def close(self) -> None:
        """Close the channel; requests under way are cancelled."""
        await self._client.close()


def _channel(settings: Settings) -> dict[str, Any]:
    credentials = grpc.ssl_channel_credentials(*settings.tls.read()) if settings.tls else None
    return {
        "url": settings.url,
        "creds": credentials,
        "channel_args": settings.channel_args(),
    }


def _model_arguments(settings: Settings, version: str, timeout_s: float) -> dict[str, Any]:
    return {
        "model_name": settings.model,
        "model_version": version,
        "headers": settings.metadata(),
        "client_timeout": timeout_s,
    }


def _infer_arguments(settings: Settings, request: Infer, timeout_s: float) -> dict[str, Any]:
    shape = [len(request.texts), 1]
    data = np.array([text.encode() for text in request.texts], np.object_).reshape(shape)
    tensor = tritonclient.grpc.InferInput(TEXT, shape, "BYTES")
    tensor.set_data_from_numpy(data)
    arguments = _model_arguments(settings, settings.model_version, timeout_s)
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in request.ask.outputs]
    parameters = request.ask.parameters
    return {**arguments, "inputs": [tensor], "outputs": outputs, "parameters": parameters}


def _raw_answer(result: Any, settings: Settings) -> RawAnswer:  # noqa: ANN401  an InferResult
    try:
        outputs = {one.name: result.as_numpy(one.name) for one in result.get_response().outputs}
    except (ValueError, TypeError) as error:  # contents that do not fill the shape they claim
        message = f"{settings.url}: the answer's outputs are damaged: {error}"
        raise ServerError(message, url=settings.url) from error
    return RawAnswer(result.get_response().model_version, outputs)


def _served_config(config: Any, settings: Settings) -> ServedConfig:  # noqa: ANN401  a ModelConfig
    try:
        classes = tuple(json.loads(config.parameters[CLASSES_PARAMETER].string_value))
        if config.max_batch_size < 1 or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"max_batch_size {config.max_batch_size}, classes {classes}")
    except (ValueError, TypeError) as error:
        raise ServerError(
            f"{settings.url}: {settings.model!r} is not a text model of this toolkit: its config "
            f"needs max_batch_size ≥ 1 and the parameter {CLASSES_PARAMETER!r}, a JSON list of "
            "names; give the name of the model that takes TEXT",
            url=settings.url,
        ) from error
    return ServedConfig(config.max_batch_size, classes)


def _statistics(reply: Any) -> Statistics:  # noqa: ANN401  a ModelStatisticsResponse
    models = reply.model_stats
    computing = ("compute_input", "compute_infer", "compute_output")
    return Statistics(
        sum(one.inference_count for one in models),
        sum(one.execution_count for one in models),
        sum(one.inference_stats.queue.ns for one in models) / 1e6,
        sum(getattr(one.inference_stats, part).ns for one in models for part in computing) / 1e6,
    )


def _mapped(
    error: InferenceServerException, settings: Settings, request: Infer | None = None
) -> CallError:
    found = from_status(str(error.status()), str(error.message()), settings.url)
    return locate(found, request) if request else found
