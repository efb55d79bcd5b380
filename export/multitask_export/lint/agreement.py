"""Rules on what configs must have in common: targets of a model, and both models of a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from multitask_core.signature import (
    ATTENTION_MASK,
    CLASS_LOGITS,
    INPUT_IDS,
    LABEL_SCORES,
    PACKED,
    PADDED,
    TENSOR_MODEL,
    TEXT_MODEL,
)
from multitask_export.lint.reading import CONFIG, Config, Model, Repository, datatype
from multitask_export.lint.rule import ERROR, WARNING, RepositoryRule

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]

# The target of the file that Triton takes where a target has none.
_DEFAULT = CONFIG.removesuffix(".pbtxt")


def _targets(repository: Repository) -> Iterator[tuple[str, str]]:
    """A client sees one model, whichever target serves it."""
    for model in repository.models:
        for config in model.configs[1:]:
            first = model.configs[0]
            for kind in ("input", "output"):
                for fault in _differences(_tensors(config, kind), _tensors(first, kind)):
                    yield (
                        config.path,
                        f"{kind} {fault} in {first.path}; all targets of a model have the same: "
                        "write the configs again",
                    )


def _differences(ours: Tensors, theirs: Tensors) -> Iterator[str]:
    for name in sorted({*ours} | {*theirs}):
        if name in ours and name in theirs:
            if ours[name] != theirs[name]:
                yield f"{name} is {_text(ours[name])} here and {_text(theirs[name])}"
        # A packed graph takes no mask.
        elif name != ATTENTION_MASK:
            yield f"{name} is {'only here, not' if name in ours else 'missing here and stands'}"


def _pairs(repository: Repository) -> Iterator[tuple[str, str]]:
    models = {model.name: model for model in repository.models}
    if TEXT_MODEL not in models:
        return
    for config in models[TEXT_MODEL].configs:
        tensor_model = models.get(TENSOR_MODEL)
        partner = _of_target(tensor_model, config.target) if tensor_model else None
        for fault in _pair_faults(config, partner, tensor_model is not None):
            yield config.path, fault


def _pair_faults(text: Config, tensor: Config | None, there: bool) -> Iterator[str]:
    calls = text.parameter("encoder") == "bls"
    if calls and not there:
        yield f'encoder "bls" calls {TENSOR_MODEL}, which is not in the repository: publish it too'
    if tensor is None:
        return
    scores = _tensors(text, "output").get(LABEL_SCORES)
    logits = _tensors(tensor, "output").get(CLASS_LOGITS)
    if scores and logits and scores != logits:
        yield (
            f"{LABEL_SCORES} is {_text(scores)} and {CLASS_LOGITS} in {tensor.path} is "
            f"{_text(logits)}; both come from one artifact: publish both models together"
        )
    layout = text.parameter("layout")
    inputs = _tensors(tensor, "input")
    wanted = PADDED if ATTENTION_MASK in inputs else PACKED
    if calls and layout and INPUT_IDS in inputs and layout != wanted:
        yield (
            f"layout {layout!r}, but {tensor.path} takes {' and '.join(inputs)}, which is "
            f"{wanted}: every call would fail; set layout to {wanted}"
        )


def _missing(repository: Repository) -> Iterator[tuple[str, str]]:
    targets = {config.target for config in repository.configs} - {_DEFAULT}
    for model in repository.models:
        for target in sorted(targets - {config.target for config in model.configs}):
            if f"{model.name}/configs/{target}.pbtxt" not in repository.broken:
                yield (
                    model.name,
                    f"no configs/{target}.pbtxt, which another model has: Triton serves this one "
                    f"with {CONFIG} instead; write it for every model",
                )


def _of_target(model: Model, target: str) -> Config | None:
    """The config that Triton takes for a target."""
    by_target = {config.target: config for config in model.configs}
    return by_target.get(target) or by_target.get(_DEFAULT)


def _tensors(config: Config, kind: str) -> Tensors:
    return {
        tensor.name: (datatype(tensor.data_type), tuple(tensor.dims))
        for tensor in getattr(config.message, kind)
    }


def _text(tensor: tuple[str, tuple[int, ...]]) -> str:
    return f"{tensor[0]} {[*tensor[1]]}"


RULES = (
    RepositoryRule("targets-differ", ERROR, _targets),
    RepositoryRule("models-differ", ERROR, _pairs),
    RepositoryRule("target-missing", WARNING, _missing),
)
