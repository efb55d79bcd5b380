"""Rules on warm-up samples: what Triton refuses, skips, or would run for the first time later."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2 as pb

from multitask_core.batching import length_buckets
from multitask_export.configs import GPU_TARGETS
from multitask_export.lint.reading import Config, datatype
from multitask_export.lint.rule import ERROR, WARNING, ConfigRule
from multitask_export.warmup import FOLDER

_BYTES = {
    **dict.fromkeys((pb.TYPE_BOOL, pb.TYPE_UINT8, pb.TYPE_INT8), 1),
    **dict.fromkeys((pb.TYPE_UINT16, pb.TYPE_INT16, pb.TYPE_FP16, pb.TYPE_BF16), 2),
    **dict.fromkeys((pb.TYPE_UINT32, pb.TYPE_INT32, pb.TYPE_FP32), 4),
    **dict.fromkeys((pb.TYPE_UINT64, pb.TYPE_INT64, pb.TYPE_FP64), 8),
}


def _missing(config: Config) -> Iterator[str]:
    on_gpu = config.on_gpu or (config.target in GPU_TARGETS and config.native)
    if on_gpu and not config.message.model_warmup:
        yield (
            "no model_warmup: the first caller of every shape waits for the GPU's set-up; add a "
            "sample for each bucket of lengths"
        )


def _inputs(config: Config) -> Iterator[str]:
    types = {tensor.name: tensor.data_type for tensor in config.message.input}
    for sample in config.message.model_warmup:
        for name in sorted({*sample.inputs} - {*types}):
            yield (
                f"sample {sample.name!r} has the input {name}; the model has {', '.join(types)}: "
                "take it out"
            )
        for name in sorted({*types} - {*sample.inputs}):
            yield f"sample {sample.name!r} leaves out the input {name}: give all, or the load fails"
        for name in sorted({*types} & {*sample.inputs}):
            if (given := sample.inputs[name].data_type) != types[name]:
                yield (
                    f"sample {sample.name!r}: input {name} has {datatype(given)}, the model's is "
                    f"{datatype(types[name])}: correct it"
                )


def _no_data(config: Config) -> Iterator[str]:
    for sample in config.message.model_warmup:
        for name, given in sorted(sample.inputs.items()):
            if given.WhichOneof("input_data_type") is None:
                yield f"sample {sample.name!r}: input {name} has no data: give input_data_file"


def _files(config: Config) -> Iterator[str]:
    """One message for each file, however many samples read it."""
    wanted: dict[str, int] = {}
    for sample in config.message.model_warmup:
        for given in sample.inputs.values():
            if given.WhichOneof("input_data_type") == "input_data_file":
                size = math.prod(given.dims) * _BYTES.get(given.data_type, 0)
                wanted[given.input_data_file] = max(size, wanted.get(given.input_data_file, 0))
    for name, size in wanted.items():
        path = config.model.folder / FOLDER / name
        if not path.is_file():
            yield f"the file {FOLDER}/{name} is missing: write it, or the load fails"
        elif (found := path.stat().st_size) < size:
            yield (
                f"the file {FOLDER}/{name} has {found} bytes; its sample's dims need {size}: write "
                "it again, or the load fails"
            )


def _random(config: Config) -> Iterator[str]:
    for sample in config.message.model_warmup:
        for name, given in sorted(sample.inputs.items()):
            if given.random_data and given.data_type == pb.TYPE_INT64:
                yield (
                    f"sample {sample.name!r}: input {name} is random_data of TYPE_INT64; random "
                    "ids lie outside the vocabulary: use input_data_file with a real row"
                )


def _batch(config: Config) -> Iterator[str]:
    largest = max(config.message.max_batch_size, 1)
    for sample in config.message.model_warmup:
        if not 1 <= sample.batch_size <= largest:
            yield (
                f"sample {sample.name!r} has batch_size {sample.batch_size}; Triton skips 0 and "
                f"refuses more than max_batch_size: give 1 to {largest}"
            )


def _buckets(config: Config) -> Iterator[str]:
    window = config.model.window
    if window is None or not config.message.model_warmup:
        return
    buckets = length_buckets(window)
    # The ids; a mask beside them has their length.
    for name in _rows(config)[:1]:
        lengths = _lengths(config, name)
        missing = [
            str(high)
            for low, high in zip([0, *buckets], buckets, strict=False)
            if not any(low < length <= high for length in lengths)
        ]
        if missing:
            yield (
                f"no sample of {name} for the lengths up to {', '.join(missing)} (buckets "
                f"{', '.join(map(str, buckets))}): the first row of such a length waits; add one "
                "each"
            )


def _rows(config: Config) -> list[str]:
    """Inputs of ids of any length."""
    return [
        tensor.name
        for tensor in config.message.input
        if tensor.data_type == pb.TYPE_INT64 and [*tensor.dims] == [-1]
    ]


def _lengths(config: Config, name: str) -> set[int]:
    """Lengths of the samples that Triton runs."""
    return {
        sample.inputs[name].dims[0]
        for sample in config.message.model_warmup
        if sample.batch_size and name in sample.inputs and sample.inputs[name].dims
    }


RULES = (
    ConfigRule("warmup-missing", WARNING, _missing),
    ConfigRule("warmup-inputs", ERROR, _inputs),
    ConfigRule("warmup-data", ERROR, _no_data),
    ConfigRule("warmup-file", ERROR, _files),
    ConfigRule("warmup-random-ids", ERROR, _random),
    ConfigRule("warmup-batch", ERROR, _batch),
    ConfigRule("warmup-buckets", WARNING, _buckets),
)
