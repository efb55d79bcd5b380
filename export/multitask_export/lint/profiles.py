"""Rules on the shapes that TensorRT builds an engine for; a request outside them fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from tritonclient.grpc import model_config_pb2 as pb

from multitask_export.lint.graphs import graph_inputs
from multitask_export.lint.reading import ONNXRUNTIME, Config, TensorInfo
from multitask_export.lint.rule import ERROR, WARNING, ConfigRule

Shapes = Mapping[str, tuple[int, ...]]

_KEYS = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
_ALL_KEYS = ", ".join(_KEYS)


def _complete(config: Config) -> Iterator[str]:
    for parameters in _profiles(config):
        absent = [key for key in _KEYS if not parameters.get(key)]
        if absent and len(absent) < len(_KEYS):
            yield f"the tensorrt accelerator lacks {', '.join(absent)}: give {_ALL_KEYS}, or none"
        for key in _KEYS:
            try:
                _parsed(parameters.get(key, ""))
            except ValueError as error:
                yield f"{key}: {error}; write name:1x16,name:1x16"


def _names(config: Config) -> Iterator[str]:
    expected = {name: len(info.dims or ()) for name, info in _expected(config).items()}
    for profile in _whole_profiles(config):
        for key, shapes in zip(_KEYS, profile, strict=True):
            for name in sorted({*expected} - {*shapes}):
                yield f"{key} lacks the graph's input {name}: name every input"
            for name in sorted({*shapes} - {*expected}):
                yield f"{key} names {name}; the graph has {', '.join(sorted(expected))}"
            for name in sorted({*shapes} & {*expected}):
                if expected[name] and len(shapes[name]) != expected[name]:
                    yield (
                        f"{key} gives {name} {_text(shapes[name])}; the graph's input has "
                        f"{expected[name]} axes: give one size for each"
                    )


def _order(config: Config) -> Iterator[str]:
    for profile in _whole_profiles(config):
        for (low_key, low), (high_key, high) in pairwise(zip(_KEYS, profile, strict=True)):
            for name in sorted({*low} & {*high}):
                if len(low[name]) == len(high[name]) and any(
                    small > large for small, large in zip(low[name], high[name], strict=True)
                ):
                    yield (
                        f"{name}: {low_key} {_text(low[name])} exceeds {high_key} "
                        f"{_text(high[name])}: order them min, opt, max"
                    )


def _cover(config: Config) -> Iterator[str]:
    needed = _needed(config)
    for _, _, largest in _whole_profiles(config):
        for name in sorted({*needed} & {*largest}):
            pairs = [*zip(largest[name], needed[name], strict=False)]
            if any(given < wanted for given, wanted in pairs):
                yield (
                    f"{_KEYS[2]} gives {name} {_text(largest[name])}, the largest batch is "
                    f"{_text(needed[name])} (max_batch_size and the window): what lies beyond fails"
                )


def _least(config: Config) -> Iterator[str]:
    for smallest, _, largest in _whole_profiles(config):
        for name in sorted({*smallest} & {*largest}):
            axes = zip(smallest[name], largest[name], strict=False)
            if any(1 < low < high for low, high in axes):
                yield (
                    f"{_KEYS[0]} gives {name} {_text(smallest[name])}: a smaller request fails; "
                    "begin at 1 on every axis that varies"
                )


def _needed(config: Config) -> Shapes:
    """The largest shapes that Triton can make of full batches of the longest rows."""
    rows, window = max(config.message.max_batch_size, 1), config.model.window or 1
    sizes: dict[str, tuple[int, ...]] = {}
    for tensor in config.message.input:
        if tensor.allow_ragged_batch:
            sizes[tensor.name] = (rows * window,)
        else:
            batch = (rows,) if config.message.max_batch_size > 0 else ()
            sizes[tensor.name] = (*batch, *(window if dim == -1 else dim for dim in tensor.dims))
    for one in config.message.batch_input:
        longest = one.kind == pb.BatchInput.BATCH_MAX_ELEMENT_COUNT_AS_SHAPE
        sizes.update(dict.fromkeys(one.target_name, (window if longest else rows,)))
    return sizes


def _expected(config: Config) -> Mapping[str, TensorInfo]:
    for _, graph in config.graphs():
        return graph.inputs
    return graph_inputs(config)


def _profiles(config: Config) -> Iterator[Mapping[str, str]]:
    if config.backend == ONNXRUNTIME:
        accelerators = config.message.optimization.execution_accelerators
        for entry in accelerators.gpu_execution_accelerator:
            if entry.name == "tensorrt":
                yield entry.parameters


def _whole_profiles(config: Config) -> Iterator[tuple[Shapes, Shapes, Shapes]]:
    """Min, opt and max of every accelerator whose three texts can be read."""
    for parameters in _profiles(config):
        try:
            low, middle, high = (_parsed(parameters.get(key, "")) for key in _KEYS)
        except ValueError:
            continue
        if low and middle and high:
            yield low, middle, high


def _parsed(text: str) -> Shapes:
    """`name:1x16,name:1x16` → shapes; raises ValueError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, text.split(",")):
        name, colon, sizes = part.strip().rpartition(":")
        if not colon or not all(size.isdecimal() for size in sizes.split("x")):
            raise ValueError(f"{part!r} is no shape")
        shapes[name] = tuple(int(size) for size in sizes.split("x"))
    return shapes


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


RULES = (
    ConfigRule("tensorrt-profile", ERROR, _complete),
    ConfigRule("tensorrt-profile-inputs", ERROR, _names),
    ConfigRule("tensorrt-profile-order", ERROR, _order),
    ConfigRule("tensorrt-profile-max", ERROR, _cover),
    ConfigRule("tensorrt-profile-min", WARNING, _least),
)
