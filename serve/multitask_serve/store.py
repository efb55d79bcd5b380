"""A repository's versions on disk: which there are, which is live, and the lock on changing that.

`publish.lock` is held by the command that makes a change; the kernel lets go of it with the
process. It stands beside the models, as the files of `history` do: Triton looks at folders alone
there.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import signature
from multitask_core.artifact import LOCK, Artifact
from multitask_core.errors import ArtifactError
from multitask_core.locks import is_locked
from multitask_export import warmup
from multitask_export.repository import CONFIG, CONFIGS, MODELS, changing, config_paths
from multitask_export.variants import TARGETS
from multitask_serve.history import Ledger
from multitask_serve.repository import NEXT

_STAGE = ".publish."
_PRUNED = ".pruned."
# Where files are written, and what they are called before they take their names.
_WRITTEN = ("", CONFIGS, warmup.FOLDER)
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")


class Store(Ledger):
    """One model repository."""

    def folder(self, version: int, model: str = signature.TEXT_MODEL) -> Path:
        """A version's folder."""
        return self.repository / model / str(version)

    def artifact(self, version: int) -> Artifact:
        """A version's artifact, its labels and tokenizer checked; raises ArtifactError."""
        if not self.folder(version).is_dir():
            there = ", ".join(map(str, self.versions())) or "none"
            raise ArtifactError(f"{self.repository} has no version {version}; it has {there}")
        return Artifact.open(self.folder(version))

    def check_files(self, version: int) -> None:
        """Check every graph of a version, in both models; raises ArtifactError."""
        self.artifact(version)
        for model in MODELS:
            held = Artifact.open(self.folder(version, model))
            default = held.manifest.config["default"]
            for name in held.graphs if model == signature.TENSOR_MODEL else [default]:
                held.graph(name)

    def size(self, version: int) -> int:
        """Bytes of a version in both models, files that they share counted once."""
        paths = (path for model in MODELS for path in self.folder(version, model).rglob("*"))
        stats = [path.stat() for path in paths if path.is_file()]
        return sum({one.st_ino: one.st_size for one in stats}.values())

    def versions(self) -> list[int]:
        """The versions that both models have, oldest first."""
        found = [_numbers(self.repository / model) for model in MODELS]
        return sorted(set.intersection(*found))

    def next_number(self) -> int:
        """One more than any version that is there or ever was live: numbers are not used again."""
        found = set.union(*(_numbers(self.repository / model) for model in MODELS))
        return max(found | {event.version for event in self.history()}, default=0) + 1

    def live(self) -> int | None:
        """The version that a server started now would answer with; None in an empty repository.

        Raises ArtifactError where the targets' configs name different ones.
        """
        paths = {path for target in TARGETS for path in self._text_configs(target)}
        named = {self._named(path) for path in paths if path.is_file()}
        if len(named) > 1:
            raise ArtifactError(
                f"the configs in {self.repository / signature.TEXT_MODEL} name different versions "
                f"({', '.join(map(str, sorted(named)))}): choose one with `rollback --to N`"
            )
        return named.pop() if named else None

    def named_anywhere(self) -> set[int]:
        """Every version that some config of some model names, targets of other tools included."""
        found: set[int] = set()
        for model in MODELS:
            folder = self.repository / model
            for path in (folder / CONFIG, *(folder / CONFIGS).glob("*.pbtxt")):
                if path.is_file():
                    found |= set(_parse(path).version_policy.specific.versions)
        return found

    def foreign_configs(self) -> list[tuple[Path, int]]:
        """Configs of targets that publishing does not write, each with the version it serves."""
        own = {f"{target}.pbtxt" for target in TARGETS}
        folder = self.repository / signature.TENSOR_MODEL / CONFIGS
        paths = [path for path in sorted(folder.glob("*.pbtxt")) if path.name not in own]
        found = []
        for path in paths:
            with suppress(ArtifactError):  # not ours to judge
                found.append((path, self._named(path)))
        return found

    def previous(self, live: int | None) -> int | None:
        """The version that was live before the live one, as far as it is still there."""
        for event in reversed(self.history()):
            if event.version == live and event.previous in self.versions():
                return event.previous
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from changing the repository; ConfigError where one does already."""
        with changing(self.repository):
            yield

    def is_locked(self) -> bool:
        """Whether another command changes the repository now."""
        return is_locked(self.repository / LOCK)

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Yield an empty folder on the repository's file system, where Triton does not look."""
        parent = self.repository / signature.TEXT_MODEL
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=_STAGE))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def delete(self, version: int) -> None:
        """Remove a version's folders; no moment shows a part of one under its number."""
        for model in MODELS:
            folder = self.folder(version, model)
            if folder.is_dir():
                aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_PRUNED))
                folder.replace(aside / folder.name)
                shutil.rmtree(aside)

    def sweep(self) -> None:
        """Remove what killed commands left: stages, folders half deleted, files not yet renamed,
        the compared model.
        """
        for model in MODELS:
            for pattern in (f"{_STAGE}*", f"{_PRUNED}*"):
                for path in (self.repository / model).glob(pattern):
                    shutil.rmtree(path, ignore_errors=True)
        for pattern in ("", *(f"{model}/{part}" for model in MODELS for part in _WRITTEN)):
            for path in (self.repository / pattern).glob(".*"):
                if _TEMPORARY.fullmatch(path.name) and path.is_file():
                    path.unlink()
        shutil.rmtree(self.repository / NEXT, ignore_errors=True)

    def prune(self, keep: int) -> list[int]:
        """Delete all but the newest `keep` versions; never one that a config names, nor the one
        that was live before. Return the deleted ones.
        """
        live = self.live()
        kept = {*self.versions()[-keep:], live, self.previous(live), *self.named_anywhere()}
        deleted = [version for version in self.versions() if version not in kept]
        for version in deleted:
            self.delete(version)
        return deleted

    def _text_configs(self, target: str) -> list[Path]:
        return config_paths(self.repository, signature.TEXT_MODEL, target)

    def _named(self, path: Path) -> int:
        policy = _parse(path).version_policy
        named = policy.specific.versions or _numbers(path.parents[path.parent.name == CONFIGS])
        if not named:
            raise ArtifactError(f"{path} serves no version: publish one, or export again")
        return max(named)


def describe(artifact: Artifact) -> Mapping[str, str]:
    """The identities that an event carries."""
    return {"identity": artifact.manifest.identity, "parent": artifact.manifest.parent}


def _numbers(folder: Path) -> set[int]:
    """Version folders, as Triton counts them: numbers without leading zeros."""
    if not folder.is_dir():
        return set()
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return {int(name) for name in names if name.isdecimal() and not name.startswith("0")}


def _parse(path: Path) -> pb.ModelConfig:
    try:
        return text_format.Parse(path.read_text("utf-8"), pb.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ArtifactError(f"{path} is no model config: {error}; export again") from error
