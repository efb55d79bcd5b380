"""Rules on what keeps requests from being merged, or merges them wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import signature
from multitask_export.lint.reading import Config, datatype, enum_name
from multitask_export.lint.rule import ERROR, WARNING, ConfigRule

# These count the elements of a request; the shapes count its rows.
PER_REQUEST = (
    pb.BatchInput.BATCH_ELEMENT_COUNT,
    pb.BatchInput.BATCH_ACCUMULATED_ELEMENT_COUNT,
    pb.BatchInput.BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO,
)
PER_ROW = (pb.BatchInput.BATCH_ITEM_SHAPE, pb.BatchInput.BATCH_ITEM_SHAPE_FLATTEN)


def _kind_name(batch_input: Any) -> str:  # noqa: ANN401  a protobuf message
    """The name of a batch input's kind."""
    return enum_name(pb.BatchInput.Kind, batch_input.kind)


def _no_batch(config: Config) -> Iterator[str]:
    if not config.ensemble and config.message.max_batch_size <= 0:
        yield "max_batch_size: 0, so every request runs by itself: give the largest batch"


def _no_dynamic(config: Config) -> Iterator[str]:
    scheduled = config.message.HasField("dynamic_batching") or config.message.HasField(
        "sequence_batching"
    )
    if config.message.max_batch_size > 0 and not scheduled and not config.ensemble:
        yield "no dynamic_batching, so requests do not merge: add `dynamic_batching {}`"


def _lengths(config: Config) -> Iterator[str]:
    if not config.message.HasField("dynamic_batching"):
        return
    names = [
        tensor.name
        for tensor in config.message.input
        if -1 in tensor.dims and not tensor.allow_ragged_batch
    ]
    if names:
        yield (
            f"{' and '.join(names)} vary in length (-1) without allow_ragged_batch, so only "
            "requests of equal length merge: serve a packed graph, or call the text model"
        )


def _queue_limits(config: Config) -> Iterator[str]:
    policy = config.message.dynamic_batching.default_queue_policy
    limited = (
        policy.max_queue_size
        or policy.default_timeout_microseconds
        or policy.allow_timeout_override
    )
    instances = sum(group.count for group in config.message.instance_group)
    if limited and instances == 1:
        yield (
            "queue limits on a single instance: Triton's batcher can miss the end of its work, and "
            "the next request waits half a second: give the instance group a count of 2 or more"
        )


def _cached(config: Config) -> Iterator[str]:
    if config.message.name == signature.TEXT_MODEL and config.message.response_cache.enable:
        yield (
            "response_cache: Triton looks answers up by their inputs alone, so a request for other "
            "outputs or with other parameters gets the first one's answer: switch it off"
        )


def _no_counts(config: Config) -> Iterator[str]:
    told = {
        source
        for one in config.message.batch_input
        if one.kind in (*PER_REQUEST, *PER_ROW)
        for source in one.source_input
    }
    for name in _ragged(config) - told:
        yield (
            f"input {name} is ragged and no batch_input tells the graph where a row ends, so "
            "sentences run into one another: add one of kind BATCH_ITEM_SHAPE"
        )


def _per_request(config: Config) -> Iterator[str]:
    ragged = _ragged(config)
    for one in config.message.batch_input:
        if one.kind in PER_REQUEST and ragged & {*one.source_input}:
            yield (
                f"batch_input {', '.join(one.target_name)} of kind {_kind_name(one)} counts "
                "requests, not rows: a request of two rows becomes one sentence; use "
                "BATCH_ITEM_SHAPE"
            )


def _batch_inputs(config: Config) -> Iterator[str]:
    inputs = {tensor.name for tensor in config.message.input}
    for one in config.message.batch_input:
        name = ", ".join(one.target_name)
        if not one.target_name:
            yield "a batch_input has no target_name: name the graph's input that it fills"
        if len(one.source_input) != 1 or not {*one.source_input} <= inputs:
            yield (
                f"batch_input {name} has source_input {[*one.source_input]}; it takes one of the "
                f"inputs {', '.join(sorted(inputs))}"
            )
        counted = one.kind != pb.BatchInput.BATCH_MAX_ELEMENT_COUNT_AS_SHAPE
        if counted and one.data_type not in (pb.TYPE_FP32, pb.TYPE_INT32):
            yield (
                f"batch_input {name} has {datatype(one.data_type)}; Triton fills it with FP32 or "
                "INT32 values whatever it says: use TYPE_FP32 or TYPE_INT32"
            )


def _ragged(config: Config) -> set[str]:
    """Ragged inputs whose rows Triton concatenates; other backends get each request by itself."""
    if not config.native:
        return set()
    return {tensor.name for tensor in config.message.input if tensor.allow_ragged_batch}


RULES = (
    ConfigRule("no-batching", WARNING, _no_batch),
    ConfigRule("no-dynamic-batching", WARNING, _no_dynamic),
    ConfigRule("lengths-do-not-merge", WARNING, _lengths),
    ConfigRule("queue-limits-stall", WARNING, _queue_limits),
    ConfigRule("cache-ignores-options", ERROR, _cached),
    ConfigRule("ragged-without-lengths", ERROR, _no_counts),
    ConfigRule("ragged-counts-requests", ERROR, _per_request),
    ConfigRule("batch-input", ERROR, _batch_inputs),
)
