"""One holder at a time of a folder or a file, named to whoever comes second."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from multitask_core.errors import ConfigError, MultiTaskError

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, refusal: Callable[[str], MultiTaskError]) -> Iterator[int]:
    """Hold the lock file `path` for the block; yields the descriptor that holds it.

    Subprocesses that inherit the descriptor hold it too; it is free once all of them have ended,
    killed or not. The file, which says who holds it, stays: deleting it would be a race. Raises
    `refusal(holder)` where it is held, with "process 7 on host" or "another process", and
    ConfigError where it cannot be written. A file system without locks gives a warning, and no
    protection.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path} ({error.strerror}), which keeps other commands away: run as the "
            "owner of its folder"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(path.read_text() or "another process") from None
        except OSError as error:
            log.warning("cannot lock %s (%s): nothing keeps a second process away", path, error)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock file `path` now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system that knows no locks
        return False
    finally:
        os.close(descriptor)
    return False
