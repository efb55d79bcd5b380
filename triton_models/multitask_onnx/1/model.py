"""Triton's tensor model where the server has no onnxruntime backend (target `embedded`).

Takes input_ids, and attention_mask where the graph is padded; gives class_logits and token_logits,
as the native backend does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from multitask_core import signature
from multitask_core.artifact import Artifact
from multitask_core.batching import Float32, Int64
from multitask_core.errors import InputError
from multitask_core.session import OnnxEncoder
from multitask_core.tensor_service import TensorLimits, answer_rows, answer_tensors


class TritonPythonModel:
    """Called by Triton's python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the version's graph; an error here is shown as the reason the model is down."""
        config = json.loads(args["model_config"])
        settings = {key: value["string_value"] for key, value in config["parameters"].items()}
        artifact = Artifact.open(Path(args["model_repository"]) / args["model_version"])
        text = artifact.text_encoder()
        self._limits = TensorLimits(text.vocabulary_size, text.windowing.max_length)
        self._encoder = OnnxEncoder.from_artifact(
            artifact,
            settings["variant"],
            engine=settings["engine"],
            threads=int(settings["threads"]),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run a dynamic batch; every request gets its own logits or its own error."""
        ids = _inputs(requests, signature.INPUT_IDS)
        if self._encoder.layout == signature.PACKED:
            answers = answer_rows(self._encoder, self._limits, ids)
        else:
            pairs = list(zip(ids, _inputs(requests, signature.ATTENTION_MASK), strict=True))
            answers = answer_tensors(self._encoder.run, self._limits, pairs)
        return [_response(answer) for answer in answers]


def _inputs(requests: list[Any], name: str) -> list[Int64]:
    return [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]


def _response(answer: tuple[Float32, Float32] | Exception) -> Any:
    if isinstance(answer, InputError):
        error = pb_utils.TritonError(str(answer), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    if isinstance(answer, Exception):
        error = pb_utils.TritonError(f"{type(answer).__name__}: {answer}")
        return pb_utils.InferenceResponse(error=error)
    class_logits, token_logits = answer
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(signature.CLASS_LOGITS, class_logits),
            pb_utils.Tensor(signature.TOKEN_LOGITS, token_logits),
        ]
    )
