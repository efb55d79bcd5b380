"""Locks between processes."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multitask_core.errors import ConfigError
from multitask_core.locks import is_locked, locked


def test_the_second_one_is_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "inner" / ".lock"
    with (
        locked(path, ConfigError),
        pytest.raises(ConfigError, match=rf"process {os.getpid()} on "),
        locked(path, ConfigError),
    ):
        pass
    assert not is_locked(path)
    with locked(path, ConfigError):
        assert is_locked(path)
    assert not is_locked(tmp_path / "none")


def test_a_subprocess_that_inherits_it_holds_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    wait = [sys.executable, "-c", "input()"]
    with locked(path, ConfigError) as descriptor:
        child = subprocess.Popen(wait, stdin=subprocess.PIPE, pass_fds=[descriptor])
    with pytest.raises(ConfigError), locked(path, ConfigError):
        pass
    child.communicate(b"\n")
    with locked(path, ConfigError):
        pass


def test_without_locks_the_work_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / ".lock", ConfigError):
        assert not is_locked(tmp_path / ".lock")
    assert "cannot lock" in caplog.text


def test_where_it_cannot_be_written_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot write .*file/\.lock .* run as the owner"),
        locked(tmp_path / "file" / ".lock", ConfigError),
    ):
        pass
