"""Publishes a version, and goes back to one.

    publish   lock → tidy → write N+1 → [compare under another name, refuse] → switch → history
    rollback  lock → tidy → check N → switch → history

`publish.json` is written before anything else and removed last, so the next command knows what a
killed one was doing. Killed before its line stood in the history, a change is undone: configs name
the live version again, a running server is brought back to it, and a new version's folders are
deleted. Killed after it, the change stands and only the leftovers go. What a server that is
restarted meanwhile finds is told in `switch`: always one whole version.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitask_core.artifact import Artifact
from multitask_core.errors import ArtifactError, ConfigError, MultiTaskError, ServeError
from multitask_core.signature import TEXT_MODEL
from multitask_export.repository import SAMPLES
from multitask_serve.admin import Admin
from multitask_serve.compare import Budget, Comparison, Sentence, read_sentences
from multitask_serve.history import Event, Journal, now
from multitask_serve.store import Store, describe
from multitask_serve.switch import Say, Version, refuse_impossible, switch
from multitask_serve.trial import try_beside, write_version
from multitask_serve.undo import tidy, undo


@dataclass(frozen=True)
class Request:
    """What to publish. sentences: None takes the artifact's own. force: why a budget may break."""

    artifact: Path
    sentences: Path | None = None
    budget: Budget = field(default_factory=Budget)
    force: str = ""
    keep: int = 3

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"--keep {self.keep}: at least 1 version")


@dataclass(frozen=True)
class Outcome:
    """What a command did. live: the version that answers now; refused: why the new one does not."""

    action: str
    version: int
    live: int | None
    previous: int | None
    identity: str
    refused: Sequence[str] = ()
    comparison: Comparison | None = None
    forced: str = ""
    deleted: Sequence[int] = ()
    server: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        compared = self.comparison.to_dict() if self.comparison else None
        return {
            "action": self.action,
            "done": not self.refused,
            **{name: value for name, value in vars(self).items() if name != "action"},
            "comparison": compared,
        }


def publish(store: Store, request: Request, server: Admin | None, say: Say) -> Outcome:
    """Write an artifact as the next version and make it live, if it stays within its budget.

    Without a server it is not compared and is served from the next start on. A refused version
    leaves no trace. Raises ArtifactError, ConfigError, DataError, ServeError; the live version is
    then what it was.
    """
    source = Artifact.open(request.artifact)
    sentences = _sentences(request) if server is not None else []
    with store.lock():
        tidy(store, server, say)
        old = _live(store, server)
        new = Version(store.next_number(), source)
        if old is not None:
            refuse_impossible(old, new, server)
        store.begin(Journal(new.number, old.number if old else None, True, now()))
        try:
            write_version(store, new, say)
            comparison = None
            if server is not None and old is not None:
                comparison = try_beside(store, old, new, server, sentences, say)
            refused = comparison.refusals(request.budget) if comparison else []
            if refused and not request.force:
                undo(store, old, new, server)
                return _outcome("publish", store, old, new, server, refused, comparison)
            switch(store, old, new, server, say)
        except BaseException:
            with suppress(MultiTaskError, OSError):  # what stands in the way is told by the cause
                undo(store, old, new, server)
            raise
        forced = request.force if refused else ""
        _record("publish", store, old, new, server, comparison, forced)
        deleted = store.prune(request.keep)
        return _outcome("publish", store, old, new, server, [], comparison, forced, deleted)


def rollback(store: Store, to: int | None, server: Admin | None, say: Say) -> Outcome:
    """Make an older version live again, by default the one before; raises as `publish`."""
    with store.lock():
        tidy(store, server, say)
        old = _live(store, server, told=to is not None)
        number = to if to is not None else store.previous(old.number if old else None)
        if number is None:
            raise ConfigError(
                "the history names no earlier version that is still there: choose one with --to; "
                f"there are {', '.join(map(str, store.versions())) or 'none'}"
            )
        store.check_files(number)
        new = Version(number, store.artifact(number))
        if old is not None and old.number == number:
            raise ConfigError(f"version {number} is live already")
        store.begin(Journal(number, old.number if old else None, False, now()))
        switch(store, old, new, server, say)
        _record("rollback", store, old, new, server)
        return _outcome("rollback", store, old, new, server)


def _sentences(request: Request) -> list[Sentence]:
    path = request.sentences or request.artifact / SAMPLES
    if request.sentences is None and not path.is_file():
        raise ConfigError(
            f"{request.artifact} holds no {SAMPLES} (an older export wrote it): give sentences to "
            "compare on with --sentences FILE, JSON lines with a text and, where known, its label "
            "and entities"
        )
    return read_sentences(path)


def _live(store: Store, server: Admin | None, told: bool = False) -> Version | None:
    """The live version: what the server answers with, which must be what the configs name.

    told: the user names the version to go to, which settles a disagreement.
    """
    try:
        live = store.live()
    except ArtifactError:
        if not told:
            raise
        live = None
    if server is not None:
        ready = server.ready_versions(TEXT_MODEL)
        if not ready:
            raise ServeError(
                f"{server.address.url} serves no version of {TEXT_MODEL}: does it serve "
                f"{store.repository}? Restart it, or publish without it"
            )
        if live != ready[-1] and not told:
            raise ServeError(
                f"{server.address.url} serves version {ready[-1]}, but the configs name {live}: "
                f"`rollback --to {live}` loads it, a restart of the server too"
            )
        live = ready[-1]
    return None if live is None else Version(live, store.artifact(live))


def _record(
    action: str,
    store: Store,
    old: Version | None,
    new: Version,
    server: Admin | None,
    comparison: Comparison | None = None,
    forced: str = "",
) -> None:
    """The line in the history makes the change stand."""
    store.append(
        Event(
            now(),
            action,
            new.number,
            old.number if old else None,
            **describe(new.artifact),
            comparison=comparison.to_dict() if comparison else None,
            forced=forced,
            server=server.address.url if server else "",
        )
    )
    store.end()


def _outcome(
    action: str,
    store: Store,
    old: Version | None,
    new: Version,
    server: Admin | None,
    refused: Sequence[str] = (),
    comparison: Comparison | None = None,
    forced: str = "",
    deleted: Sequence[int] = (),
) -> Outcome:
    return Outcome(
        action=action,
        version=new.number,
        live=store.live(),
        previous=old.number if old else None,
        identity=new.artifact.manifest.identity,
        refused=list(refused),
        comparison=comparison,
        forced=forced,
        deleted=list(deleted),
        server=server.address.url if server else "",
    )
