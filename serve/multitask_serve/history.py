"""What was done to a repository, and what is being done: two files beside the models.

history.jsonl    one line for each publish and rollback
publish.json     the change that is being made, while it is being made
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from multitask_core.artifact import HISTORY, JOURNAL
from multitask_core.errors import ArtifactError
from multitask_core.files import write_json


@dataclass(frozen=True)
class Event:
    """One line of the history.

    action: publish or rollback. previous: the version that was live before, None for the first.
    comparison: figures, None where there was no server. forced: why a budget was overruled.
    """

    time: str
    action: str
    version: int
    previous: int | None
    identity: str
    parent: str
    comparison: dict[str, Any] | None = None
    forced: str = ""
    server: str = ""


@dataclass(frozen=True)
class Journal:
    """A change under way. live: what to return to; new: its folders were written for it."""

    version: int
    live: int | None
    new: bool
    time: str


class Ledger:
    """The two files of one repository."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository

    def history(self) -> list[Event]:
        """What was done, oldest first; a line that was cut short by a crash is left out."""
        try:
            lines = (self.repository / HISTORY).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            try:
                events.append(Event(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return events

    def append(self, event: Event) -> None:
        """Add a line to the history; it is on disk when this returns."""
        path = self.repository / HISTORY
        # A line that a crash cut short must not swallow this one.
        cut = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        line = ("\n" if cut else "") + json.dumps(asdict(event), ensure_ascii=False) + "\n"
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def journal(self) -> Journal | None:
        """The change that was begun and not ended."""
        path = self.repository / JOURNAL
        try:
            return Journal(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged ({error}): remove it and choose a version with "
                                "`rollback --to N`") from error  # fmt: skip

    def begin(self, journal: Journal) -> None:
        """Note a change before anything is changed."""
        write_json(self.repository / JOURNAL, asdict(journal))

    def end(self) -> None:
        """The change is whole, or undone."""
        (self.repository / JOURNAL).unlink(missing_ok=True)


def now() -> str:
    """UTC, to the microsecond, ISO 8601."""
    return datetime.now(timezone.utc).isoformat()
