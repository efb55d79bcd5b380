"""Rules on GPU settings, which a server without a GPU passes over, misspelt or not.

Keys as the onnxruntime backend reads them (onnxruntime_backend, src/onnxruntime.cc, LoadModel).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from multitask_export.lint.graphs import CPU_TARGETS
from multitask_export.lint.reading import ONNXRUNTIME, Config
from multitask_export.lint.rule import ERROR, WARNING, ConfigRule

_GPU, _CPU = ("tensorrt", "cuda"), ("openvino",)
_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")

TENSORRT_KEYS = frozenset(
    [
        "precision_mode",
        "max_workspace_size_bytes",
        "trt_max_partition_iterations",
        "trt_min_subgraph_size",
        "int8_calibration_table_name",
        "int8_use_native_calibration_table",
        "trt_dla_enable",
        "trt_dla_core",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_engine_cache_prefix",
        "trt_dump_subgraphs",
        "trt_force_sequential_engine_build",
        "trt_context_memory_sharing_enable",
        "trt_layer_norm_fp32_fallback",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_force_timing_cache",
        "trt_detailed_build_log",
        "trt_build_heuristics_enable",
        "trt_sparsity_enable",
        "trt_builder_optimization_level",
        "trt_auxiliary_streams",
        "trt_tactic_sources",
        "trt_extra_plugin_lib_paths",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_profile_max_shapes",
        "trt_cuda_graph_enable",
        "trt_dump_ep_context_model",
        "trt_ep_context_file_path",
        "trt_ep_context_embed_mode",
    ]
)
# The backend writes these itself from the config's top-level `parameters`, or else its defaults.
# That holds for a config without `parameters` too: Triton hands the backend an empty table.
# Key → the values that it takes there.
CUDA_TOP_LEVEL = {
    "cudnn_conv_algo_search": "0 (EXHAUSTIVE), 1 (HEURISTIC) or 2 (DEFAULT)",
    "gpu_mem_limit": "bytes",
    "arena_extend_strategy": "0 (kNextPowerOfTwo) or 1 (kSameAsRequested)",
    "do_copy_in_default_stream": "0 or 1",
}
_CUDA_BY_TRITON = ("device_id", "has_user_compute_stream", "user_compute_stream")
CUDA_KEYS = frozenset(
    [
        "cudnn_conv_use_max_workspace",
        "enable_cuda_graph",
        "cudnn_conv1d_pad_to_nc1d",
        "tunable_op_enable",
        "tunable_op_tuning_enable",
        "tunable_op_max_tuning_duration_ms",
        "enable_skip_layer_norm_strict_mode",
        "prefer_nhwc",
        "use_ep_level_unified_stream",
        "use_tf32",
        "fuse_conv_bias",
        "sdpa_kernel",
        "gpu_external_alloc",
        "gpu_external_free",
        "gpu_external_empty_cache",
    ]
).union(CUDA_TOP_LEVEL)


def _names(config: Config) -> Iterator[str]:
    if config.backend != ONNXRUNTIME:
        return
    for device, entries, known in (
        ("gpu", _accelerators(config).gpu_execution_accelerator, _GPU),
        ("cpu", _accelerators(config).cpu_execution_accelerator, _CPU),
    ):
        for entry in entries:
            if entry.name not in known:
                yield (
                    f"{device}_execution_accelerator {entry.name!r} is unknown, and the load "
                    f"fails; there is {' and '.join(known)}"
                )


def _other_backend(config: Config) -> Iterator[str]:
    entries = _accelerators(config)
    used = entries.gpu_execution_accelerator or entries.cpu_execution_accelerator
    if used and config.backend != ONNXRUNTIME:
        yield (
            f"the backend {config.backend!r} ignores execution_accelerators, only {ONNXRUNTIME} "
            "reads them: take them out"
        )


def _tensorrt_keys(config: Config) -> Iterator[str]:
    for entry in _gpu(config, "tensorrt"):
        for key in sorted({*entry.parameters} - TENSORRT_KEYS):
            yield (
                f"the tensorrt accelerator has the key {key}, which Triton does not know: a GPU "
                f"server refuses the model. {_nearest(key, TENSORRT_KEYS)}"
            )


def _precision(config: Config) -> Iterator[str]:
    for entry in _gpu(config, "tensorrt"):
        mode = entry.parameters.get("precision_mode", _PRECISIONS[0])
        if mode not in _PRECISIONS:
            yield (
                f"precision_mode {mode!r}, which a GPU server refuses; there is "
                f"{', '.join(_PRECISIONS)}"
            )


def _cuda_overwritten(config: Config) -> Iterator[str]:
    for entry in _gpu(config, "cuda"):
        for key in sorted({*entry.parameters} & {*CUDA_TOP_LEVEL}):
            yield (
                f"the cuda accelerator sets {key}, which the backend overwrites from the top level "
                f"or by its default: set it in the config's top-level `parameters` as "
                f"{CUDA_TOP_LEVEL[key]}"
            )


def _cuda_keys(config: Config) -> Iterator[str]:
    for entry in _gpu(config, "cuda"):
        for key in sorted({*entry.parameters} - CUDA_KEYS):
            if key in _CUDA_BY_TRITON:
                yield f"the cuda accelerator sets {key}, which Triton sets itself: take it out"
            else:
                yield (
                    f"the cuda accelerator has the key {key}, which ONNX Runtime may not know: a "
                    f"GPU server then refuses the model. {_nearest(key, CUDA_KEYS)}"
                )


def _kind(config: Config) -> Iterator[str]:
    if config.on_gpu and config.target in CPU_TARGETS:
        yield (
            f"KIND_GPU in the target {config.target}: a server without a GPU refuses the model; "
            "use KIND_CPU"
        )


def _ignored_on_cpu(config: Config) -> Iterator[str]:
    entries = _accelerators(config).gpu_execution_accelerator
    if entries and config.backend == ONNXRUNTIME and not config.on_gpu:
        names = ", ".join(entry.name for entry in entries)
        yield (
            f"gpu_execution_accelerator {names} without an instance_group of KIND_GPU: an instance "
            "on a CPU ignores it; set KIND_GPU or take it out"
        )


def _accelerators(config: Config) -> Any:  # noqa: ANN401  a protobuf message
    return config.message.optimization.execution_accelerators


def _gpu(config: Config, name: str) -> Iterator[Any]:
    if config.backend == ONNXRUNTIME:
        for entry in _accelerators(config).gpu_execution_accelerator:
            if entry.name == name:
                yield entry


def _nearest(key: str, known: Iterable[str]) -> str:
    near = get_close_matches(key, sorted(known), n=1, cutoff=0.6)
    if near:
        return f"Is it {near[0]}?"
    return f"Take it out; there are {', '.join(sorted(known))}"


RULES = (
    ConfigRule("accelerator-name", ERROR, _names),
    ConfigRule("accelerator-ignored", WARNING, _other_backend),
    ConfigRule("tensorrt-key", ERROR, _tensorrt_keys),
    ConfigRule("tensorrt-precision", ERROR, _precision),
    ConfigRule("cuda-key-overwritten", ERROR, _cuda_overwritten),
    ConfigRule("cuda-key", WARNING, _cuda_keys),
    ConfigRule("gpu-on-cpu-target", ERROR, _kind),
    ConfigRule("accelerator-without-gpu", WARNING, _ignored_on_cpu),
)
