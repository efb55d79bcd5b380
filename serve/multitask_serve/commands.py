"""The commands on a repository's versions: publish, rollback, versions, status."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from multitask_core.errors import ArtifactError, ConfigError
from multitask_serve import records
from multitask_serve.compare import Budget
from multitask_serve.records import Record
from multitask_serve.runtime import default_state_folder
from multitask_serve.security import TOKEN_VARIABLE

# tritonclient and protobuf load slowly: `start` does without.
if TYPE_CHECKING:
    from multitask_serve.admin import Admin
    from multitask_serve.publish import Outcome
    from multitask_serve.store import Store


def publish_command(options: argparse.Namespace) -> int:
    """Run `publish`; 1 where the version was refused."""
    from multitask_serve.publish import Request, publish
    from multitask_serve.store import Store

    budget = Budget(
        options.max_label_changes, options.max_entity_changes, options.max_latency_ratio
    )
    if options.force is not None and not options.force.strip():
        raise ConfigError("--force: give the reason, it stands in the history")
    request = Request(
        options.artifact, options.sentences, budget, options.force or "", options.keep
    )
    with _server(options) as (server, _):
        if server is None:
            _say("no running server serves this repository: the version will not be compared")
        outcome = publish(Store(options.repository), request, server, _say)
    _report(outcome, server is not None)
    if not outcome.refused:
        _tell_others(Store(options.repository), outcome)
    return 1 if outcome.refused else 0


def rollback_command(options: argparse.Namespace) -> int:
    """Run `rollback`."""
    from multitask_serve.publish import rollback
    from multitask_serve.store import Store

    with _server(options) as (server, _):
        outcome = rollback(Store(options.repository), options.to, server, _say)
    _report(outcome, server is not None)
    _tell_others(Store(options.repository), outcome)
    return 0


def versions_command(options: argparse.Namespace) -> int:
    """Run `versions`."""
    from multitask_serve.store import Store

    store = Store(options.repository)
    rows = [_version_row(store, number) for number in store.versions()]
    if journal := store.journal():
        print(
            f"a change to version {journal.version} is under way, or was interrupted: the next "
            "publish, rollback or start cleans up",
            file=sys.stderr,
        )
    if options.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    if not rows:
        raise ArtifactError(f"{options.repository} holds no versions: publish one")
    line = "{:>7} {:5}{:14}{:14}{:22}{:>9}  {}"
    print(line.format("version", "", "identity", "parent", "published (UTC)", "size", "compared"))
    for row in rows:
        print(
            line.format(
                row["version"],
                "live" if row["live"] else "",
                row["identity"][:12],
                row["parent"][:12],
                (row["published"] or "–")[:19].replace("T", " "),
                f"{row['bytes'] / 1e6:.0f} MB",
                _compared(row),
            )
        )
    return 0


def status_command(options: argparse.Namespace) -> int:
    """Run `status`; 1 where the server is not ready."""
    from multitask_serve import status

    with _server(options) as (server, record):
        if server is None:
            raise ConfigError(
                "no running server of this user was found for this repository: name one with --url "
                f"host:port, its admin token in ${TOKEN_VARIABLE}"
            )
        found = status.collect(server, record)
    print(json.dumps(found) if options.json else status.page(found))
    return 0 if found["ready"] else 1


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[Admin | None, Record | None]]:
    """The server to speak to and its record, None for what is not there."""
    from multitask_serve.admin import Address, Admin, find_tls

    record = _record(options)
    if record is None and options.url is None:
        yield None, None
        return
    token = os.environ.get(TOKEN_VARIABLE) or (record.token if record else "")
    certificate = record.certificate if record else ""
    tls = find_tls(options.tls_ca, options.tls_client_cert, options.tls_client_key, certificate)
    url = options.url or (record.grpc if record else "")
    address = Address(url, token, tls, record.target if record else "")
    with Admin(address, options.load_timeout) as server:
        yield server, record


def _record(options: argparse.Namespace) -> Record | None:
    """The record of the server that is meant; ConfigError where it could be several."""
    found = records.of_repository(default_state_folder(), options.repository)
    if options.url is not None:
        found = [one for one in found if _is_same(options.url, one.grpc)]
    if len(found) > 1:
        raise ConfigError(
            f"{len(found)} servers serve {options.repository} "
            f"({', '.join(one.grpc for one in found)}): name the one to switch with --url; the "
            "others go on with what they have loaded until they are restarted"
        )
    return found[0] if found else None


def _is_same(url: str, other: str) -> bool:
    """Whether host:port name the same address; a server far away may have the port of one here, and
    must not get its token.
    """
    hosts, ports = zip(*(one.rpartition(":")[::2] for one in (url, other)), strict=True)
    here = {"localhost", "127.0.0.1", "[::1]", "0.0.0.0", platform.node()}  # noqa: S104  not bound
    return ports[0] == ports[1] and (hosts[0] == hosts[1] or set(hosts) <= here)


def _version_row(store: Store, number: int) -> dict[str, Any]:
    live = store.live()
    events = [one for one in store.history() if (one.version, one.action) == (number, "publish")]
    event = events[-1] if events else None
    try:
        manifest = store.artifact(number).manifest
        identity, parent = manifest.identity, manifest.parent
    except ArtifactError as error:
        identity, parent = "damaged", str(error)
    return {
        "version": number,
        "live": number == live,
        "identity": identity,
        "parent": parent,
        "published": event.time if event else None,
        "bytes": store.size(number),
        "comparison": event.comparison if event else None,
        "forced": event.forced if event else "",
    }


def _compared(row: dict[str, Any]) -> str:
    figures = row["comparison"]
    if figures is None:
        return "no"
    forced = f", forced: {row['forced']}" if row["forced"] else ""
    return (
        f"labels {figures['label_changes']:.1%} and entities {figures['entity_changes']:.1%} "
        f"changed, {figures['latency_ratio']:.2f} x latency{forced}"
    )


def _report(outcome: Outcome, compared: bool) -> None:
    for reason in outcome.refused:
        print(f"refused: {reason}", file=sys.stderr)
    if outcome.refused:
        _say(f"version {outcome.live} stays live; --force REASON publishes all the same")
    else:
        _say(f"live: version {outcome.live}" + ("" if compared else ", from the next start on"))
    if outcome.deleted:
        _say(f"deleted old versions: {', '.join(map(str, outcome.deleted))}")
    print(json.dumps(outcome.to_dict(), ensure_ascii=False), flush=True)


def _tell_others(store: Store, outcome: Outcome) -> None:
    for path, version in store.foreign_configs():
        if version != outcome.live:
            print(
                f"{path} still serves version {version}: build its plan for version "
                f"{outcome.live} (multitask_export engine, or make engine)",
                file=sys.stderr,
            )


def _say(message: str) -> None:
    print(message, flush=True)
