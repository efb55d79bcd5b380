"""Rules on folders and files: names, versions, manifests, and what a config must hold at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from multitask_core import artifact, manifest
from multitask_core.errors import ArtifactError
from multitask_core.signature import TENSOR_MODEL, TEXT_MODEL
from multitask_export.lint.reading import CONFIG, Config, Model, Repository
from multitask_export.lint.rule import ERROR, WARNING, ConfigRule, RepositoryRule


def _broken(repository: Repository) -> Iterator[tuple[str, str]]:
    for path, reason in repository.broken.items():
        yield path, f"{reason}; Triton refuses the model: correct the text"


def _stray(repository: Repository) -> Iterator[tuple[str, str]]:
    for name in repository.stray:
        yield (
            name,
            "the folder holds no config; Triton takes every folder here, hidden ones too, for a "
            "model and ends its start with an error: move it elsewhere",
        )


def _no_version(repository: Repository) -> Iterator[tuple[str, str]]:
    for model in repository.models:
        if not model.versions:
            yield (
                model.name,
                "no version folder, a number from 1 without leading zeros: publish a version",
            )


def _no_default(repository: Repository) -> Iterator[tuple[str, str]]:
    for model in repository.models:
        if not (model.folder / CONFIG).is_file():
            yield (
                model.name,
                f"no {CONFIG}, only configs/: a server started without --model-config-name, or "
                "with a name that is not there, refuses the model: write one",
            )


def _manifests(repository: Repository) -> Iterator[tuple[str, str]]:
    for model in repository.models:
        for version in model.versions:
            path = version.relative_to(repository.folder).as_posix()
            for fault in _version_faults(model, version):
                yield path, fault


def _version_faults(model: Model, version: Path) -> Iterator[str]:
    """Check what a version folder holds; it may hold fewer graphs than its artifact."""
    if not (version / manifest.NAME).exists() and model.name not in (TEXT_MODEL, TENSOR_MODEL):
        return
    try:
        record = manifest.read(version, artifact.KIND)
    except ArtifactError as error:
        yield str(error)
        return
    listed = {name for name in record.files if (version / name).exists()}
    graphs = {path.name for path in version.glob("*.onnx")}
    for name in sorted(listed | graphs | {artifact.LABELS, artifact.TOKENIZER}):
        try:
            manifest.verify(version, artifact.KIND, [name])
        except ArtifactError as error:
            yield str(error)


def _name(config: Config) -> Iterator[str]:
    name, folder = config.message.name, config.model.name
    if name and name != folder:
        yield f'name: "{name}" in the folder {folder}; Triton wants both equal: rename one of them'


def _tensors(config: Config) -> Iterator[str]:
    for kind, tensors in (("input", config.message.input), ("output", config.message.output)):
        if not tensors:
            yield (
                f"no {kind}: Triton would have to complete the config from the graph, which "
                f"production switches off: name every {kind}"
            )
        for tensor in tensors:
            if not (tensor.name and tensor.data_type and tensor.dims):
                yield f"{kind} {tensor.name!r} lacks its name, data_type or dims: give all three"


REPOSITORY_RULES = (
    RepositoryRule("unparsable-config", ERROR, _broken),
    RepositoryRule("stray-folder", ERROR, _stray),
    RepositoryRule("no-version", ERROR, _no_version),
    RepositoryRule("no-default-config", WARNING, _no_default),
    RepositoryRule("version-files", ERROR, _manifests),
)
CONFIG_RULES = (
    ConfigRule("model-name", ERROR, _name),
    ConfigRule("missing-tensors", ERROR, _tensors),
)
