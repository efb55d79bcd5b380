"""Moves a repository, and the server that serves it, from one version to another.

Configs are shared by all versions of a model, and there is one for each target, so the switch is
several renames. Their order makes every moment one at which a server can be started:

1. `overlap`: the tensor model's configs name both versions, on every target whose tensor config is
   the same for both. Text configs still name the old version, which finds its tensor model.
2. `point`: the text model's configs name the new version, one target after the other. On each
   target a start gives the old version or the new one, whole: the tensor model has both.
3. `settle`: the tensor model's configs name the new version alone.

Where the tensor configs differ (another number of classes or tags, another layout, the engine cache
of TensorRT), step 1 skips the target and step 2 writes its tensor config just before its text
config. On `embedded` that is no gap, because its text model does not call the tensor model. On the
others a bare tritonserver that starts between these two renames, milliseconds apart, would serve a
text model without its tensor model; `multitask_serve start` waits for nothing, but first undoes
what a killed command left in that state.

A running server follows: after step 1 it loads the tensor model, where its text model calls it;
after step 2 the text model: Triton loads the new version beside the old one, sends requests to it
once it is warm, and lets the old one end those it has. Only then does step 3 take the old version's
tensor model away; it is not kept, for it would hold a second set of weights in memory. Whatever
fails on the way, the same three steps lead back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multitask_core import manifest
from multitask_core.artifact import TOKENIZER, Artifact
from multitask_core.errors import MultiTaskError, ServeError
from multitask_core.signature import TENSOR_MODEL, TEXT_MODEL
from multitask_export.repository import make_config, write_config, write_warmup
from multitask_export.variants import TARGETS
from multitask_serve.admin import Admin
from multitask_serve.store import Store

Say = Callable[[str], None]

_POLL_S = 0.1
# Requests that the old version has are answered within its queue limit of 10 s and their own time.
_OLD_ENDS_S = 60.0
_PROBE = "a"


@dataclass(frozen=True)
class Version:
    """A version's number and artifact."""

    number: int
    artifact: Artifact


def switch(store: Store, old: Version | None, new: Version, server: Admin | None, say: Say) -> None:
    """Make `new` live on disk and on the server; on any failure `old` is made live again.

    Raises what went wrong; ServeError where the server does not answer with the new version.
    """
    try:
        _forward(store, old, new, server, say)
    except BaseException as error:
        if old is not None:
            say(f"undone: back to version {old.number}")
            _back(store, old, new, server, error)
        raise


def overlap(store: Store, old: Version, new: Version, server: Admin | None) -> None:
    """Step 1: have the tensor model serve both versions, on disk and where a server needs it.

    Raises ServeError where the server's text model needs both and its target cannot have them.
    """
    refuse_impossible(old, new, server)
    _write_overlap(store.repository, old, new)
    if server is None or not server.calls_tensor_model():
        return
    if not _load_both(server, old, new):
        raise ServeError(_impossible(old, new, "the server's target"))


def refuse_impossible(old: Version, new: Version, server: Admin | None) -> None:
    """Raise ServeError where the server's target, if it is known, cannot serve both at once."""
    target = server.address.target if server is not None else ""
    if (
        server is not None
        and target in TARGETS
        and target not in overlapping(old.artifact, new.artifact)
        and server.calls_tensor_model()
    ):
        raise ServeError(_impossible(old, new, f"target {target}"))


def overlapping(old: Artifact, new: Artifact) -> list[str]:
    """The targets on which one tensor config, and its warm-up data, is right for both artifacts."""
    if old.manifest.files[TOKENIZER] != new.manifest.files[TOKENIZER]:
        return []
    return [
        target
        for target in TARGETS
        if (config := make_config(old, TENSOR_MODEL, target, [1])) is not None
        and config == make_config(new, TENSOR_MODEL, target, [1])
    ]


def write_files(repository: Path, old: Version | None, new: Version) -> None:
    """All three steps on disk alone."""
    if old is not None:
        _write_overlap(repository, old, new)
    _write_point(repository, old, new)
    _write_settled(repository, new)


def _forward(
    store: Store, old: Version | None, new: Version, server: Admin | None, say: Say
) -> None:
    if old is not None:
        overlap(store, old, new, server)
    _write_point(store.repository, old, new)
    if server is None:
        _write_settled(store.repository, new)
        return
    server.load(TEXT_MODEL)
    _check_answers(server, new)
    say(f"the server answers with version {new.number}")
    if old is not None and server.calls_tensor_model() and not _ends(server, old):
        say(
            f"version {old.number} still has requests: its tensor model stays loaded until the "
            "next publish"
        )
        return
    _write_settled(store.repository, new)
    server.load(TENSOR_MODEL)


def _back(
    store: Store, old: Version, new: Version, server: Admin | None, cause: BaseException
) -> None:
    """Undo on disk first: a server that is restarted must find the old version."""
    write_files(store.repository, new, old)
    if server is None:
        return
    try:
        if server.calls_tensor_model():
            _write_overlap(store.repository, new, old)
            _load_both(server, old, new)
        server.load(TEXT_MODEL)
        _check_answers(server, old)
        _write_settled(store.repository, old)
        server.load(TENSOR_MODEL)
    except MultiTaskError as error:
        _write_settled(store.repository, old)
        raise ServeError(
            f"{cause}; the repository names version {old.number} again, but the server could not "
            f"be brought back to it ({error}): restart it"
        ) from error


def _write_overlap(repository: Path, old: Version, new: Version) -> None:
    for target in overlapping(old.artifact, new.artifact):
        both = sorted({old.number, new.number})
        write_config(old.artifact, repository, TENSOR_MODEL, target, both)


def _write_point(repository: Path, old: Version | None, new: Version) -> None:
    write_warmup(new.artifact, repository)
    both = overlapping(old.artifact, new.artifact) if old is not None else []
    for target in TARGETS:
        if target not in both:
            write_config(new.artifact, repository, TENSOR_MODEL, target, [new.number])
        write_config(new.artifact, repository, TEXT_MODEL, target, [new.number])


def _write_settled(repository: Path, new: Version) -> None:
    for target in TARGETS:
        write_config(new.artifact, repository, TENSOR_MODEL, target, [new.number])


def _load_both(server: Admin, old: Version, new: Version) -> bool:
    wanted = sorted({old.number, new.number})
    if server.ready_versions(TENSOR_MODEL) != wanted:
        server.load(TENSOR_MODEL)
    return server.ready_versions(TENSOR_MODEL) == wanted


def _check_answers(server: Admin, version: Version) -> None:
    found = server.answering_version(_PROBE)
    if found != version.number:
        raise ServeError(
            f"after the load the server answers with version {found}, not {version.number}: does "
            "it serve this repository, and with --model-control-mode=explicit?"
        )


def _ends(server: Admin, old: Version) -> bool:
    """Wait until the old text model has answered what it took."""
    deadline_s = time.monotonic() + _OLD_ENDS_S
    while not server.is_gone(TEXT_MODEL, old.number):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _impossible(old: Version, new: Version, where: str) -> str:
    return (
        f"{where} cannot serve version {old.number} and {new.number} side by side, which a switch "
        f"without a gap needs, because they differ in {_difference(old.artifact, new.artifact)}: "
        "publish into a repository of its own, start a second server on it and switch in the load "
        "balancer, or stop this server and publish without one"
    )


def _difference(old: Artifact, new: Artifact) -> str:
    counts = [(len(one.schema.classes), len(one.schema.tags)) for one in (old, new)]
    if counts[0] != counts[1]:
        return "the number of classes or tags ({} and {}, {} and {})".format(*counts[0], *counts[1])
    if old.manifest.files[TOKENIZER] != new.manifest.files[TOKENIZER]:
        return f"their tokenizer ({manifest.NAME})"
    return "the tensor model's config (graph, layout, window, threads or TensorRT engine)"
