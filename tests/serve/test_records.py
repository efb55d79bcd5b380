"""The records by which a user's running servers are found."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, replace

import pytest

from multitask_core.errors import ServeError
from multitask_serve import cli, records

FACTS = {
    "target": "embedded",
    "grpc": "127.0.0.1:8001",
    "http": "127.0.0.1:8000",
    "metrics": "http://127.0.0.1:8002/metrics",
    "token": "t" * 16,
    "tls": "",
    "certificate": "",
}


@pytest.fixture
def write(state):
    return lambda repository, **facts: records.write(
        state, repository=str(repository), **{**FACTS, **facts}
    )


def test_a_record_is_read_back_and_is_its_owners_alone(write, state, tmp_path):
    path = write(tmp_path)
    assert path == state / "servers" / f"{os.getpid()}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (record,) = records.read_all(state)
    assert record.pid == os.getpid()
    assert {**asdict(record), **FACTS} == asdict(record)


def test_servers_of_one_process_have_a_record_each(write, state, tmp_path):
    paths = [write(tmp_path), write(tmp_path, grpc="127.0.0.1:9001")]
    assert [path.name for path in paths] == [f"{os.getpid()}.json", f"{os.getpid()}-2.json"]
    assert [one.grpc for one in records.read_all(state)] == ["127.0.0.1:8001", "127.0.0.1:9001"]


def test_records_of_the_dead_are_removed(write, state, tmp_path):
    path = write(tmp_path)
    record = records.read_all(state)[0]
    with subprocess.Popen(["true"]) as process:
        process.wait()
    dead = {
        f"{process.pid}.json": replace(record, pid=process.pid),  # ended
        "1.json": replace(record, pid=1),  # another process has the number now
    }
    for name, one in dead.items():
        (path.parent / name).write_text(json.dumps(asdict(one)))
    (path.parent / "broken.json").write_text('{"pid": 1}')
    assert records.read_all(state) == [record]
    assert list(path.parent.iterdir()) == [path]


def test_a_number_that_is_used_again_is_taken_over(write, state, tmp_path):
    path = write(tmp_path)
    record = records.read_all(state)[0]
    path.write_text(json.dumps(asdict(replace(record, began=record.began + 1))))
    assert write(tmp_path) == path


def test_servers_are_found_by_their_repository(write, state, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    write(tmp_path / "one")
    write(tmp_path / "two")
    assert len(records.of_repository(state, tmp_path / "link")) == 1
    assert records.of_repository(state, tmp_path / "three") == []


def test_one_of_several_servers_must_be_named(write, tmp_path, capsys):
    write(tmp_path)
    write(tmp_path, grpc="127.0.0.1:9")
    assert cli.main(["status", "--repository", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "2 servers serve" in error
    assert "127.0.0.1:8001, 127.0.0.1:9" in error
    assert "--url" in error


def test_a_state_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ServeError, match="XDG_CACHE_HOME"):
        records.write(tmp_path / "file", repository="x", **FACTS)
