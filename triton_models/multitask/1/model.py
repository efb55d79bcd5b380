"""Triton's text model: TEXT in, LABEL, LABEL_SCORES and ENTITIES out.

A shell over multitask_core. Parameters of the config: `encoder` is `in-process` (this process opens
the graph) or `bls` (the tensor model runs it); `variant` names the graph and `layout` is its own,
padded or packed; `threads` (0: the CPUs, shared among the instances), `token_budget`, `max_chars`
and `max_pieces` are numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from multitask_core import signature
from multitask_core.artifact import Artifact
from multitask_core.batching import Int64
from multitask_core.errors import InputError
from multitask_core.pipeline import Encoder, Pipeline
from multitask_core.service import HeadLogits, TensorModelEncoder, TextAnswer, answer_texts
from multitask_core.session import OnnxEncoder, available_cpus


class TritonPythonModel:
    """Called by Triton's python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the version's artifact; an error here is shown as the reason the model is down."""
        config = json.loads(args["model_config"])
        settings = {key: value["string_value"] for key, value in config["parameters"].items()}
        version = args["model_version"]
        instances = config["instance_group"][0]["count"]
        threads = int(settings["threads"]) or max(1, available_cpus() // instances)
        artifact = Artifact.open(Path(args["model_repository"]) / version)
        self._pipeline = Pipeline(
            artifact.text_encoder(),
            _encoder(settings, artifact, version, threads),
            artifact.schema,
            token_budget=int(settings["token_budget"]),
            max_chars=int(settings["max_chars"]),
            max_pieces=int(settings["max_pieces"]),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a dynamic batch; every request gets its own answer or its own error."""
        texts = [
            pb_utils.get_input_tensor_by_name(request, signature.TEXT).as_numpy().ravel().tolist()
            for request in requests
        ]
        return [_response(answer) for answer in answer_texts(self._pipeline, texts)]


def _encoder(settings: dict[str, str], artifact: Artifact, version: str, threads: int) -> Encoder:
    if settings["encoder"] == "in-process":
        graph = artifact.graph(settings["variant"])
        return OnnxEncoder(graph, artifact.schema, threads=threads)
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


def _response(answer: TextAnswer | Exception) -> Any:
    if isinstance(answer, InputError):
        error = pb_utils.TritonError(str(answer), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    if isinstance(answer, Exception):
        error = pb_utils.TritonError(f"{type(answer).__name__}: {answer}")
        return pb_utils.InferenceResponse(error=error)
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(signature.LABEL, answer.labels),
            pb_utils.Tensor(signature.LABEL_SCORES, answer.label_scores),
            pb_utils.Tensor(signature.ENTITIES, answer.entities),
        ]
    )
