"""A damaged, foreign or unfinished folder is refused before it is used."""

import json
from pathlib import Path

import pytest

from multitask_core import manifest
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.files import staged_folder, write_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "graph").write_bytes(b"weights" * 100)
    manifest.write(tmp_path, "artifact", files=[tmp_path / "graph"], tools=["numpy"])
    return tmp_path


def test_round_trip(folder: Path) -> None:
    record = manifest.verify(folder, "artifact")
    assert record.files["graph"].size == 700
    assert "numpy" in record.tools
    assert record.identity == manifest.read(folder, "artifact").identity


def test_a_changed_byte_is_found(folder: Path) -> None:
    (folder / "graph").write_bytes(b"Weights" + b"weights" * 99)
    with pytest.raises(ArtifactError, match=r"graph has SHA-256 .* was changed"):
        manifest.verify(folder, "artifact")


def test_a_truncated_file_is_found(folder: Path) -> None:
    (folder / "graph").write_bytes(b"weights" * 99)
    with pytest.raises(ArtifactError, match="693 bytes, its manifest says 700"):
        manifest.verify(folder, "artifact")


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "graph").unlink()
    with pytest.raises(ArtifactError, match="graph is missing"):
        manifest.verify(folder, "artifact")


def test_a_file_put_there_later_is_not_used(folder: Path) -> None:
    (folder / "other").touch()
    with pytest.raises(ArtifactError, match="not listed"):
        manifest.verify(folder, "artifact", ["other"])


def test_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="kind 'artifact'; 'checkpoint' was asked for"):
        manifest.read(folder, "checkpoint")


def test_a_folder_without_manifest_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="multitask_train fit"):
        manifest.read(tmp_path, "checkpoint")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        "{}",
        '{"identity": "", "schema_version": 1, "kind": "artifact"}',
        '{"identity": "", "schema_version": 1, "kind": "artifact", "files": {"graph": {}}}',
    ],
)
def test_a_broken_manifest(folder: Path, content: str) -> None:
    (folder / manifest.NAME).write_text(content)
    with pytest.raises(ArtifactError, match="damaged|schema version None"):
        manifest.read(folder, "artifact")


def test_another_schema_version(folder: Path) -> None:
    value = json.loads((folder / manifest.NAME).read_text())
    (folder / manifest.NAME).write_text(json.dumps({**value, "schema_version": 99}))
    with pytest.raises(ArtifactError, match="schema version 99"):
        manifest.read(folder, "artifact")


def test_an_edited_manifest(folder: Path) -> None:
    path = folder / manifest.NAME
    path.write_text(path.read_text().replace('"parent": ""', '"parent": "other"'))
    with pytest.raises(ArtifactError, match="was edited"):
        manifest.verify(folder, "artifact")


def test_a_foreign_folder_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    manifest.check_target(folder, "artifact")
    manifest.check_target(folder / "new", "artifact")
    foreign = folder / "foreign"
    (foreign / "logs").mkdir(parents=True)
    manifest.check_target(foreign, "artifact", ["logs"])
    (foreign / "notes.txt").touch()
    with pytest.raises(ConfigError, match="would be replaced"):
        manifest.check_target(foreign, "artifact", ["logs"])


def test_a_failed_swap_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "artifact"
    target.mkdir()
    (target / "a").write_text("old")
    rename = Path.replace

    def fail(self: Path, to: Path) -> Path:
        if to == target and self.name.startswith(".artifact.") and "old" not in str(self):
            raise OSError("no space")
        return rename(self, to)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"), staged_folder(target):
        pass
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    with staged_folder(target) as stage:
        (stage / "a").write_text("old")
    with pytest.raises(KeyError), staged_folder(target) as stage:
        (stage / "a").write_text("new")
        raise KeyError
    assert (target / "a").read_text() == "old"
    with staged_folder(target) as stage:
        (stage / "b").write_text("new")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "file", b"1")
    write_bytes(tmp_path / "new" / "file", b"22")
    assert (tmp_path / "new" / "file").read_bytes() == b"22"
    assert len(list((tmp_path / "new").iterdir())) == 1
