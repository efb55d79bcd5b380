"""Writes a version apart from what is served, and tries it beside the live one.

The version to compare stands in the repository as a model of its own, `multitask_next`: hard links,
one version, its own configs. Triton warms it and serves it under that name alone; the live model
does not notice. On the targets whose text model calls the tensor model, that one serves both
versions meanwhile; callers of the tensor API who do not name a version get the higher one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from multitask_client import Client
from multitask_core.errors import ArtifactError, ServeError
from multitask_core.files import link_or_copy, replace_folder, write_text
from multitask_core.signature import TEXT_MODEL
from multitask_export import warmup
from multitask_export.configs import config_text
from multitask_export.repository import (
    CONFIG,
    CONFIGS,
    DEFAULT_TARGET,
    MODELS,
    make_config,
    write_repository,
)
from multitask_export.variants import TARGETS
from multitask_serve.admin import Admin
from multitask_serve.compare import Comparison, Sentence, compare
from multitask_serve.repository import NEXT
from multitask_serve.store import Store
from multitask_serve.switch import Say, Version, overlap

_DEADLINE_S = 60.0
_FEW_SENTENCES = 50


def write_version(store: Store, new: Version, say: Say) -> None:
    """Build and lint the version apart, then move its two folders into place."""
    with store.stage() as stage:
        write_repository(new.artifact.folder, stage, new.number)
        _lint(stage, say)
        for model in MODELS:
            target = store.folder(new.number, model)
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_folder(stage / model / str(new.number), target)
    say(f"version {new.number} written")


def _lint(repository: Path, say: Say) -> None:
    try:
        from multitask_export.lint import lint  # reads graphs with onnx, which a server may lack
    except ImportError:
        say("not linted: the package onnx is not installed here")
        return
    errors = [one for one in lint(repository) if one.severity == "error"]
    if errors:
        faults = "\n".join(f"  {one.path} [{one.rule}] {one.message}" for one in errors)
        raise ArtifactError(f"Triton would not serve this artifact:\n{faults}")


def try_beside(
    store: Store,
    old: Version,
    new: Version,
    server: Admin,
    sentences: Sequence[Sentence],
    say: Say,
) -> Comparison:
    """Load the new version under another name, ask both, unload it."""
    if len(sentences) < _FEW_SENTENCES:
        say(f"{len(sentences)} sentences only: the comparison is coarse")
    overlap(store, old, new, server)
    _write_next(store, new)
    try:
        server.load(NEXT)
        say(f"version {new.number} is warm; asking it and version {old.number} in turns")
        with _client(server, TEXT_MODEL) as live, _client(server, NEXT) as other:
            comparison = compare(live, other, sentences)
    finally:
        with suppress(ServeError):
            server.unload(NEXT)
        store.sweep()
    say(comparison.table(old.number, new.number))
    return comparison


def _client(server: Admin, model: str) -> Client:
    address = server.address
    return Client(address.url, model=model, deadline_s=_DEADLINE_S, tls=address.tls)


def _write_next(store: Store, new: Version) -> None:
    """The model that is compared; staged where Triton does not look, then moved in one rename."""
    with store.stage() as stage:
        for path in store.folder(new.number).iterdir():
            link_or_copy(path, stage / str(new.number) / path.name)
        warmup.write_text_data(stage, new.artifact.text_encoder())
        for target in TARGETS:
            config = make_config(new.artifact, TEXT_MODEL, target, [new.number])
            if config is None:
                continue
            config.name = NEXT
            write_text(stage / CONFIGS / f"{target}.pbtxt", config_text(config))
            if target == DEFAULT_TARGET:
                write_text(stage / CONFIG, config_text(config))
        stage.chmod(0o755)
        replace_folder(stage, store.repository / NEXT)
