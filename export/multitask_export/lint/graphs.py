"""Rules that compare a config with the graph that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from multitask_core.errors import ArtifactError
from multitask_export.lint.reading import ONNXRUNTIME, Config, TensorInfo, datatype
from multitask_export.lint.rule import ERROR, WARNING, ConfigRule

CPU_TARGETS = ("embedded", "cpu")


def graph_inputs(config: Config) -> dict[str, TensorInfo]:
    """What a config hands to its graph: the requests' tensors and the batch inputs."""
    inputs = {
        tensor.name: TensorInfo(
            datatype(tensor.data_type),
            (-1,) if tensor.allow_ragged_batch else _batched(config, _dims(tensor)),
        )
        for tensor in config.message.input
    }
    ranks = {tensor.name: len(tensor.dims) for tensor in config.message.input}
    for one in config.message.batch_input:
        rank = ranks.get(one.source_input[0], 1) if one.source_input else 1
        by_row = one.kind == pb.BatchInput.BATCH_ITEM_SHAPE
        for name in one.target_name:
            inputs[name] = TensorInfo(datatype(one.data_type), (-1, rank) if by_row else (-1,))
    return inputs


def graph_outputs(config: Config) -> dict[str, TensorInfo]:
    """What a config expects of its graph."""
    scattered = {name for one in config.message.batch_output for name in one.target_name}
    return {
        tensor.name: TensorInfo(
            datatype(tensor.data_type),
            _dims(tensor) if tensor.name in scattered else _batched(config, _dims(tensor)),
        )
        for tensor in config.message.output
    }


def _missing(config: Config) -> Iterator[str]:
    for version in config.model.versions:
        path = config.graph_file(version)
        try:
            if path is not None:
                config.model.graph(path)
        except ArtifactError as error:
            yield (
                f"version {version.name}: {error}; the config serves it: publish the version again "
                "or name a graph that is there"
            )


def _inputs(config: Config) -> Iterator[str]:
    if config.backend == ONNXRUNTIME:
        for version, graph in config.graphs():
            for fault in _differences("input", graph_inputs(config), graph.inputs):
                yield f"version {version.name}: {fault}"


def _outputs(config: Config) -> Iterator[str]:
    if config.backend == ONNXRUNTIME:
        for version, graph in config.graphs():
            for fault in _differences("output", graph_outputs(config), graph.outputs):
                yield f"version {version.name}: {fault}"


def _differences(
    kind: str, told: Mapping[str, TensorInfo], found: Mapping[str, TensorInfo]
) -> Iterator[str]:
    source = "config and batch_input" if kind == "input" else "config"
    for name in sorted({*told} - {*found}):
        yield (
            f"the {source} name the {kind} {name}, the graph has {', '.join(sorted(found))}: "
            "correct the name or take it out"
        )
    for name in sorted({*found} - {*told}):
        yield f"the graph has the {kind} {name}, which the config does not name: add it"
    for name in sorted({*told} & {*found}):
        if fault := _difference(told[name], found[name]):
            yield f"{kind} {name}: {fault}: correct the config or name another graph"


def _difference(told: TensorInfo, found: TensorInfo) -> str:
    if told.datatype != found.datatype:
        return f"the config gives {told.datatype}, the graph {found.datatype}"
    if found.dims is not None and told.dims != found.dims:
        return f"the config makes it {told.dims}, batch included, the graph has {found.dims}"
    return ""


def _half_on_cpu(config: Config) -> Iterator[str]:
    cpu = {*config.kinds} == {pb.ModelInstanceGroup.KIND_CPU}
    if config.on_gpu or not (cpu or config.target in CPU_TARGETS):
        return
    for version, graph in config.graphs():
        if graph.half:
            yield (
                f"version {version.name}: the graph has FP16 weights and runs on a CPU, which "
                "computes in FP32 and converts at every step: name an FP32 or INT8 graph"
            )


def _lowered(config: Config) -> Iterator[str]:
    accelerators = config.message.optimization.execution_accelerators.gpu_execution_accelerator
    modes = {one.parameters.get("precision_mode") for one in accelerators if one.name == "tensorrt"}
    for version, graph in config.graphs():
        if "FP16" in modes and not graph.half:
            yield (
                f"version {version.name}: precision_mode FP16 on a graph in FP32, whose answers in "
                "FP16 nobody has compared: name the exported fp16 graph, or leave the mode out"
            )


def _dims(tensor: Any) -> tuple[int, ...]:  # noqa: ANN401  a protobuf message
    return tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)


def _batched(config: Config, dims: tuple[int, ...]) -> tuple[int, ...]:
    return (-1, *dims) if config.message.max_batch_size > 0 else dims


RULES = (
    ConfigRule("graph-file", ERROR, _missing),
    ConfigRule("graph-inputs", ERROR, _inputs),
    ConfigRule("graph-outputs", ERROR, _outputs),
    ConfigRule("fp16-on-cpu", WARNING, _half_on_cpu),
    ConfigRule("tensorrt-lowers-precision", ERROR, _lowered),
)
