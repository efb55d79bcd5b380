"""Takes back what was not finished: after a refusal, an error, or a command that was killed."""

from __future__ import annotations

import shutil
from contextlib import suppress

from multitask_core.errors import ArtifactError, ServeError
from multitask_core.signature import TENSOR_MODEL, TEXT_MODEL
from multitask_export.repository import MODELS, config_paths
from multitask_export.variants import TARGETS
from multitask_export.warmup import FOLDER
from multitask_serve.admin import Admin
from multitask_serve.history import Journal
from multitask_serve.repository import NEXT
from multitask_serve.store import Store
from multitask_serve.switch import Say, Version, switch, write_files


def tidy(store: Store, server: Admin | None, say: Say) -> None:
    """Undo or finish what a killed command was doing; the caller holds the lock."""
    journal = store.journal()
    if journal is not None:
        done = [one for one in store.history() if one.time > journal.time]
        if done and done[-1].version == journal.version:
            say(f"version {journal.version} was live when its command was killed")
        else:
            say(f"undoing an interrupted change to version {journal.version}")
            _undo_journal(store, journal, server)
        store.end()
    store.sweep()


def undo(store: Store, old: Version | None, new: Version, server: Admin | None) -> None:
    """Make the repository what it was before a new version, and the server as far as it answers."""
    if old is not None:
        write_files(store.repository, new, old)
        with suppress(ServeError):
            _drop_second_tensor_model(server)
    else:
        _remove_configs(store)
    store.delete(new.number)
    store.sweep()
    store.end()


def _undo_journal(store: Store, journal: Journal, server: Admin | None) -> None:
    old = Version(journal.live, store.artifact(journal.live)) if journal.live else None
    try:
        new = Version(journal.version, store.artifact(journal.version))
    except ArtifactError:  # killed before its folders were whole, and so before any config
        new = None
    if old is None:
        if journal.new:
            _remove_configs(store)
        # Else a rollback that settled configs which named different versions: they still do.
    else:
        write_files(store.repository, new, old)
        if server is not None:
            _bring_back(store, old, new, server)
    if journal.new:
        store.delete(journal.version)


def _bring_back(store: Store, old: Version, new: Version | None, server: Admin) -> None:
    if (NEXT, new.number if new else 0) in server.states():
        server.unload(NEXT)
    if new is not None and server.ready_versions(TEXT_MODEL) == [new.number]:
        switch(store, new, old, server, lambda _: None)
    _drop_second_tensor_model(server)


def _drop_second_tensor_model(server: Admin | None) -> None:
    if server is not None and len(server.ready_versions(TENSOR_MODEL)) > 1:
        server.load(TENSOR_MODEL)


def _remove_configs(store: Store) -> None:
    """A first version that did not come to be leaves no model behind."""
    for model in MODELS:
        for target in TARGETS:
            for path in config_paths(store.repository, model, target):
                path.unlink(missing_ok=True)
        shutil.rmtree(store.repository / model / FOLDER, ignore_errors=True)
