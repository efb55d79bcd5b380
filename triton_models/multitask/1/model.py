"""Triton's text model: TEXT in, LABEL, LABEL_SCORES and ENTITIES out.

A shell over multitask_core. Parameters of the config: `encoder` is `in-process` (this process opens
the graph) or `bls` (the tensor model runs it); `variant` names the graph and `layout` is its own,
padded or packed; `serving` holds the settings of multitask_core.serving as JSON.

A request may ask for some of the outputs only, and carry the parameter `min_entity_score`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from multitask_core import signature
from multitask_core.artifact import Artifact
from multitask_core.batching import Int64
from multitask_core.errors import InputError, OverloadError
from multitask_core.pipeline import Encoder
from multitask_core.serving import Serving
from multitask_core.session import OnnxEncoder
from multitask_core.telemetry import COUNTERS, ENGINE_INFO, Key, Meter, engine_info
from multitask_core.tensor_service import HeadLogits, TensorModelEncoder
from multitask_core.text_service import Result, TextRequest, TextService, claim_memory

_PUBLISH_S = 1.0
# Computing yields to tritonserver, which receives and refuses: it must be prompt under overload.
_NICENESS = 10


class TritonPythonModel:
    """Called by Triton's python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the version's artifact; an error here is shown as the reason the model is down."""
        logging.basicConfig(level=logging.INFO, format="multitask: %(message)s")
        config = json.loads(args["model_config"])
        settings = {key: value["string_value"] for key, value in config["parameters"].items()}
        serving = Serving.model_validate_json(settings["serving"])
        version = args["model_version"]
        artifact = Artifact.open(Path(args["model_repository"]) / version)
        encoder = _encoder(settings, serving, artifact, version)
        meter = Meter()
        in_process = settings["encoder"] == "in-process"
        self._service = TextService.for_artifact(
            artifact, encoder, settings["layout"], serving, meter, in_process=in_process
        )
        labels = {"model": args["model_name"], "version": version}
        self._publisher = _Publisher(meter, labels)
        if isinstance(encoder, OnnxEncoder):
            self._engine = _engine_gauge({**labels, **engine_info(encoder.engine)})
        gc.freeze()  # modules and weights stay: no use in walking through them between requests

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a dynamic batch; every request gets its own answer or its own error.

        None stands for a request whose answer its response sender brings later.
        """
        parsed = [
            TextRequest.parse(
                pb_utils.get_input_tensor_by_name(request, signature.TEXT).as_numpy().ravel(),
                request.requested_output_names(),
                request.parameters(),
            )
            for request in requests
        ]
        results = self._service.answer(parsed, lambda index: _sender(requests[index]))
        return [None if result is None else _response(result) for result in results]

    def finalize(self) -> None:
        """Answer what still waits, and publish the last counts."""
        self._service.close()
        self._publisher.close()


def _encoder(
    settings: dict[str, str], serving: Serving, artifact: Artifact, version: str
) -> Encoder:
    if settings["encoder"] == "in-process":
        os.nice(_NICENESS)
        encoder = OnnxEncoder.from_artifact(
            artifact,
            settings["variant"],
            engine=serving.engine,
            threads=serving.threads,
            instances=serving.instances,
        )
        claim_memory(encoder, artifact.text_encoder().windowing.max_length, serving)
        return encoder
    layout = settings["layout"]
    return TensorModelEncoder(_TensorModel(artifact, version, layout), layout)


class _TensorModel:
    """The tensor model of the same version, called inside the server."""

    def __init__(self, artifact: Artifact, version: str, layout: str) -> None:
        self._version = int(version)
        self._signature = signature.tensor_signature(artifact.schema, layout)

    def __call__(self, *inputs: Int64) -> HeadLogits:
        request = pb_utils.InferenceRequest(
            model_name=self._signature.model,
            model_version=self._version,
            requested_output_names=[tensor.name for tensor in self._signature.outputs],
            inputs=[
                pb_utils.Tensor(tensor.name, value)
                for tensor, value in zip(self._signature.inputs, inputs, strict=True)
            ],
        )
        response = request.exec()
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        class_logits, token_logits = (
            np.asarray(pb_utils.get_output_tensor_by_name(response, tensor.name).as_numpy())
            for tensor in self._signature.outputs
        )
        return class_logits, token_logits


def _engine_gauge(labels: dict[str, str]) -> Any:
    """On the metrics page for as long as it is held."""
    family = pb_utils.MetricFamily(
        name=ENGINE_INFO,
        description="What runs the encoder; always 1",
        kind=pb_utils.MetricFamily.GAUGE,
    )
    gauge = family.Metric(labels=labels)
    gauge.set(1)
    return family, gauge


class _Publisher:
    """Adds a meter's counts to Triton's metrics page once a second: each call crosses processes."""

    def __init__(self, meter: Meter, labels: dict[str, str]) -> None:
        self._meter, self._labels = meter, labels
        self._families = {
            name: pb_utils.MetricFamily(
                name=name, description=text, kind=pb_utils.MetricFamily.COUNTER
            )
            for name, text in COUNTERS.items()
        }
        self._metrics: dict[Key, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publish what is left and stop."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_PUBLISH_S):
            self._publish()
        self._publish()

    def _publish(self) -> None:
        for key, value in self._meter.take().items():
            name, label, shown = key
            if key not in self._metrics:
                labels = {**self._labels, **({label: shown} if label else {})}
                self._metrics[key] = self._families[name].Metric(labels=labels)
            self._metrics[key].increment(value)


def _sender(request: Any) -> Callable[[Result], None]:
    """Whom to give the answer of a request that steps aside."""
    sender = request.get_response_sender()
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    return lambda result: sender.send(_response(result), flags=final)


def _response(result: Result) -> Any:
    if isinstance(result, Exception):
        return pb_utils.InferenceResponse(error=_error(result))
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(signature.LABEL, result.labels),
            pb_utils.Tensor(signature.LABEL_SCORES, result.label_scores),
            pb_utils.Tensor(signature.ENTITIES, result.entities),
        ]
    )


def _error(error: Exception) -> Any:
    if isinstance(error, InputError):
        return pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
    if isinstance(error, OverloadError):
        return pb_utils.TritonError(str(error), pb_utils.TritonError.UNAVAILABLE)
    return pb_utils.TritonError(f"{type(error).__name__}: {error}")
