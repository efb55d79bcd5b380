"""Atomic files and folders, and what a process killed in between leaves behind."""

from pathlib import Path

import pytest

from multitask_core.files import (
    recover_folder,
    remove_stages,
    replace_folder,
    staged_file,
    staged_folder,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "inner" / "file"
    with staged_file(target) as stage:
        stage.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(RuntimeError), staged_file(target) as stage:
        stage.write_text("half")
        raise RuntimeError
    assert target.read_text() == "new"
    assert names(target.parent) == ["file"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for text in ("one", "two"):
        with staged_folder(target) as stage:
            (stage / "file").write_text(text)
    assert (target / "file").read_text() == "two"
    assert names(tmp_path) == ["folder"]


def killed_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose replacement ended after it was moved aside and before the new one came."""
    target, source = tmp_path / "folder", tmp_path / "new"
    for folder in (target, source):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    moves = []
    move = Path.replace

    def dies(self: Path, to: Path) -> Path:
        if moves:
            raise SystemExit  # what is left in place is what SIGKILL leaves
        moves.append(to)
        return move(self, to)

    monkeypatch.setattr(Path, "replace", dies)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(SystemExit):
        replace_folder(source, target)
    monkeypatch.undo()
    assert not target.exists()
    return target


def test_a_folder_left_aside_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = killed_inside(tmp_path, monkeypatch)
    recover_folder(target)
    assert (target / "file").read_text() == "folder"
    assert names(tmp_path) == ["folder", "new"]
    recover_folder(target)
    assert (target / "file").read_text() == "folder"


def test_a_folder_left_aside_gives_way_to_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = killed_inside(tmp_path, monkeypatch)
    (tmp_path / "new").replace(target)
    recover_folder(target)
    assert (target / "file").read_text() == "new"
    assert names(tmp_path) == ["folder"]


def test_what_was_half_written_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, others = tmp_path / "run[1]", tmp_path / "run1"
    with monkeypatch.context() as patch:  # what is left in place is what SIGKILL leaves
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        for target in (mine, others):
            with pytest.raises(SystemExit), staged_folder(target) as stage:
                (stage / "file").write_text("half")
                raise SystemExit
        with pytest.raises(SystemExit), staged_file(mine) as stage:
            raise SystemExit
    (tmp_path / f".{mine.name}.lock").touch()
    assert len(names(tmp_path)) == 4
    remove_stages(tmp_path, mine.name)
    left, lock = names(tmp_path)
    assert lock == ".run[1].lock"
    assert left.startswith(".run1.new.")
    remove_stages(tmp_path)
    assert names(tmp_path) == [lock]
