"""config.pbtxt of both Triton models for every target, as protobuf messages.

`configs/<target>.pbtxt` is chosen with `--model-config-name=<target>`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import signature
from multitask_core.artifact import Artifact
from multitask_core.batching import MAX_ROWS
from multitask_core.labels import LabelSchema
from multitask_core.serving import Serving
from multitask_core.signature import PACKED, Signature, Tensor
from multitask_export import warmup

GPU_TARGETS = ("cuda", "tensorrt")
# Dockerfile.triton's image. The engines that TensorRT builds inside it belong to its versions.
CONTAINER = "26.07"
ENGINE_CACHE = "/var/cache/multitask"
# What TensorRT tunes its kernels for: rows x pieces.
OPTIMAL_SHAPE = (8, 64)

# A GPU wants larger batches than a CPU's caches do.
GPU_TOKENS = 8

_DATATYPES = {"INT64": pb.TYPE_INT64, "FP32": pb.TYPE_FP32, "BYTES": pb.TYPE_STRING}


@dataclass(frozen=True)
class Served:
    """What one target serves.

    variant: the graph's variant, file its name, digest its SHA-256. window: longest row in pieces.
    serving: the text model's settings.
    """

    target: str
    schema: LabelSchema
    variant: str
    layout: str
    file: str
    digest: str
    window: int
    serving: Serving

    @classmethod
    def from_artifact(cls, exported: Artifact, target: str) -> Served:
        """The variant that an artifact chose for a target."""
        config = exported.manifest.config
        variant = config["targets"][target]
        file = exported.graphs[variant]
        return cls(
            target,
            exported.schema,
            variant,
            config["layouts"][variant],
            file,
            exported.manifest.files[file].sha256,
            config["windowing"]["max_length"],
            exported.serving,
        )

    @property
    def on_gpu(self) -> bool:
        """Whether the tensor model runs on a GPU."""
        return self.target in GPU_TARGETS


def text_config(served: Served, versions: Sequence[int] = (1,)) -> pb.ModelConfig:
    """The text model: a python backend on every target. versions: those that it serves."""
    serving = served.serving
    if served.on_gpu:
        budget = GPU_TOKENS * serving.token_budget
        serving = serving.model_copy(update={"token_budget": budget})
    config = _base(signature.text_signature(served.schema), versions, serving.max_batch)
    config.backend = "python"
    in_process = served.target == "embedded"
    _add_queue_limits(config, serving)
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=serving.instances)
    _set_parameters(
        config,
        encoder="in-process" if in_process else "bls",
        variant=served.variant,
        layout=served.layout,
        serving=serving.model_dump_json(),
        **{
            signature.CLASSES_PARAMETER: json.dumps(list(served.schema.classes), ensure_ascii=False)
        },
    )
    if in_process:  # over BLS the tensor model may not be there yet; it warms itself
        config.model_warmup.extend(warmup.text_samples(served.window))
    return config


def tensor_config(served: Served, versions: Sequence[int] = (1,)) -> pb.ModelConfig:
    """The tensor model: ONNX Runtime, inside Triton's python backend where it has no other.

    versions: those that it serves.
    """
    config = _base(signature.tensor_signature(served.schema, served.layout), versions)
    config.dynamic_batching.SetInParent()
    kind = pb.ModelInstanceGroup.KIND_GPU if served.on_gpu else pb.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(kind=kind, count=1)
    if served.target == "embedded":
        config.backend = "python"
        serving = served.serving
        _set_parameters(
            config, variant=served.variant, engine=serving.engine, threads=str(serving.threads)
        )
    else:
        config.backend = "onnxruntime"
        config.default_model_filename = served.file
        if served.serving.threads and not served.on_gpu:
            _set_parameters(config, intra_op_thread_count=str(served.serving.threads))
    if served.layout == PACKED:
        _make_ragged(config, native=served.target != "embedded")
    if served.target == "tensorrt":
        _add_tensorrt(config, served)
    rows = (1, MAX_ROWS) if served.on_gpu else (1,)
    config.model_warmup.extend(warmup.tensor_samples(served.window, served.layout, rows))
    return config


def config_text(config: pb.ModelConfig) -> str:
    """A config as pbtxt."""
    header = "# Written by multitask_export from the artifact; do not edit.\n"
    return header + str(text_format.MessageToString(config))


def _base(model: Signature, versions: Sequence[int], max_batch: int = MAX_ROWS) -> pb.ModelConfig:
    """Named versions alone are served: one that is only being written is not taken for live."""
    config = pb.ModelConfig(name=model.model, max_batch_size=max_batch)
    config.input.extend(_tensor(pb.ModelInput, tensor) for tensor in model.inputs)
    config.output.extend(_tensor(pb.ModelOutput, tensor) for tensor in model.outputs)
    config.version_policy.specific.versions.extend(versions)
    return config


def _add_queue_limits(config: pb.ModelConfig, serving: Serving) -> None:
    """Refuse at once what finds the queue full, and what has waited too long.

    Only for the text model: the one behind it takes whatever that accepted. With any such limit
    Triton's batcher misses the wake-up when its one instance has just answered, and the next
    request waits half a second (measured on 24.10; with a second instance it does not happen).
    """
    policy = config.dynamic_batching.default_queue_policy
    policy.timeout_action = pb.ModelQueuePolicy.REJECT
    policy.default_timeout_microseconds = 1000 * serving.queue_ms
    policy.allow_timeout_override = True
    policy.max_queue_size = serving.queue_size


def _make_ragged(config: pb.ModelConfig, native: bool) -> None:
    """Requests of different lengths merge; a native backend gets their lengths as tensors.

    BATCH_ITEM_SHAPE counts rows. The element counts count requests, so that a request of two rows
    would become one sentence.
    """
    config.input[0].allow_ragged_batch = True
    if not native:  # the python backend hands over every request by itself
        return
    for kind, target in (
        (pb.BatchInput.BATCH_ITEM_SHAPE, signature.LENGTHS),
        (pb.BatchInput.BATCH_MAX_ELEMENT_COUNT_AS_SHAPE, signature.LONGEST),
    ):
        config.batch_input.add(
            kind=kind,
            target_name=[target],
            data_type=pb.TYPE_FP32,
            source_input=[signature.INPUT_IDS],
        )
    config.batch_output.add(
        kind=pb.BatchOutput.BATCH_SCATTER_WITH_INPUT_SHAPE,
        target_name=[signature.TOKEN_LOGITS],
        source_input=[signature.INPUT_IDS],
    )


def _add_tensorrt(config: pb.ModelConfig, served: Served) -> None:
    """TensorRT inside ONNX Runtime: one profile over all shapes, engines cached between starts.

    ONNX Runtime adds the GPU's architecture to an engine's name; the folder names the container,
    which fixes TensorRT and ONNX Runtime, and the prefix the weights, which its own key leaves out.
    """
    rows, pieces = OPTIMAL_SHAPE
    optimal = (rows, min(pieces, served.window))
    folder = f"{ENGINE_CACHE}/triton-{CONTAINER}"
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(
        name="tensorrt"
    )
    parameters: Mapping[str, str] = {
        "precision_mode": "FP16",  # of the graph itself; `variants.choose` gives no other
        "max_workspace_size_bytes": str(4 << 30),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": folder,
        "trt_engine_cache_prefix": served.digest[:12],
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": folder,
        "trt_layer_norm_fp32_fallback": "true",
        "trt_builder_optimization_level": "3",
        "trt_profile_min_shapes": _shapes((1, 1)),
        "trt_profile_opt_shapes": _shapes(optimal),
        "trt_profile_max_shapes": _shapes((MAX_ROWS, served.window)),
    }
    for key, value in parameters.items():
        accelerator.parameters[key] = value


def _shapes(shape: tuple[int, int]) -> str:
    names = (signature.INPUT_IDS, signature.ATTENTION_MASK)
    return ",".join(f"{name}:{shape[0]}x{shape[1]}" for name in names)


def _tensor(kind: type, tensor: Tensor) -> object:
    return kind(name=tensor.name, data_type=_DATATYPES[tensor.datatype], dims=tensor.dims)


def _set_parameters(config: pb.ModelConfig, **values: str) -> None:
    for key, value in values.items():
        config.parameters[key].string_value = value
