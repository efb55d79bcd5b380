"""Checks on a model repository, and repairs, before a server is started for it."""

from __future__ import annotations

from pathlib import Path

from multitask_core.artifact import JOURNAL
from multitask_core.errors import ConfigError, ServeError

# The text model of a version that is being compared with the live one.
NEXT = "multitask_next"
TARGETS = ("embedded", "cpu", "cuda", "tensorrt", "tensorrt-plan")


def find_models(repository: Path, target: str) -> list[str]:
    """Return the names of the repository's models, all of which the target can serve.

    Triton takes every folder in a repository for a model, so the first one that is none is a
    ServeError. The model that a publish compares is not the server's to load.
    """
    if not repository.is_dir():
        raise ServeError(
            f"no model repository at {repository}: run `make export` first, or name another folder "
            "with --repository"
        )
    folders = sorted(path for path in repository.iterdir() if path.is_dir() and path.name != NEXT)
    if not folders:
        raise ServeError(f"{repository} holds no models: run `make export` first")
    for folder in folders:
        _check_model(folder, target)
    if not any(_target_config(folder, target).is_file() for folder in folders):
        raise ServeError(_no_config(repository, folders, target))
    return [folder.name for folder in folders]


def tidy_before_start(repository: Path) -> list[str]:
    """Undo on disk what a killed publish left; returns what there is to tell.

    Nothing is touched while another command works there, or where nothing is left over.
    """
    if not (repository / JOURNAL).exists() and not (repository / NEXT).exists():
        return []
    told: list[str] = []
    try:
        from multitask_serve.store import Store  # with protobuf, which a container need not have
        from multitask_serve.undo import tidy

        store = Store(repository)
        if store.is_locked():  # a publish is under way; each of its steps can be served
            return []
        with store.lock():
            tidy(store, None, told.append)
    except (OSError, ImportError, ConfigError) as error:
        return [f"{repository} holds an interrupted change that cannot be undone here: {error}"]
    return told


def _target_config(folder: Path, target: str) -> Path:
    return folder / "configs" / f"{target}.pbtxt"


def _check_model(folder: Path, target: str) -> None:
    default = folder / "config.pbtxt"
    if not _target_config(folder, target).is_file() and not default.is_file():
        raise ServeError(
            f"{folder} is no model for target {target}: it has neither configs/{target}.pbtxt nor "
            "config.pbtxt: run `make export`, or move the folder out of the repository"
        )
    if not any(path.is_dir() and path.name.isdecimal() for path in folder.iterdir()):
        raise ServeError(
            f"model {folder.name} has no version folder ({folder}/1): run `make export` first"
        )


def _no_config(repository: Path, folders: list[Path], target: str) -> str:
    known = sorted({path.stem for folder in folders for path in folder.glob("configs/*.pbtxt")})
    return (
        f"no model in {repository} has a config for target {target} (configs/{target}.pbtxt); "
        f"it has {', '.join(known) or 'none'}: choose one of these with --target, "
        "or run `make export`"
    )
