"""A server as `multitask_serve.publish` sees it: it loads what the configs of one target name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core.errors import ServeError
from multitask_core.signature import TEXT_MODEL
from multitask_serve.admin import Address


def named(repository: Path, model: str, target: str) -> list[int]:
    """The versions that a model's config names for a target."""
    path = repository / model / "configs" / f"{target}.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    return list(config.version_policy.specific.versions)


class FakeAdmin:
    """Fails at the call with the number `fails_at`, and at all later ones when `for_good`."""

    def __init__(self, repository: Path, target: str = "embedded") -> None:
        self.repository = repository
        self.address = Address("localhost:8001", "t" * 16, target=target)
        self.loaded: dict[str, list[int]] = {}
        self.calls: list[str] = []
        self.fails_at: int | None = None
        self.for_good = False

    def load(self, model: str) -> None:
        self._called(f"load {model}")
        versions = named(self.repository, model, self.address.target)
        for version in versions:
            assert (self.repository / model / str(version) / "model.py").is_file()
        self.loaded[model] = versions

    def unload(self, model: str) -> None:
        self._called(f"unload {model}")
        self.loaded.pop(model, None)

    def states(self) -> Mapping[tuple[str, int], str]:
        self._called("states")
        return {(model, one): "READY" for model, all_ in self.loaded.items() for one in all_}

    def ready_versions(self, model: str) -> list[int]:
        self._called(f"ready {model}")
        return list(self.loaded.get(model, []))

    def is_gone(self, model: str, version: int) -> bool:
        self._called("gone")
        return version not in self.loaded.get(model, [])

    def calls_tensor_model(self) -> bool:
        self._called("config")
        return self.address.target != "embedded"

    def answering_version(self, text: str) -> int:
        self._called(f"ask {text}")
        return self.loaded[TEXT_MODEL][-1]

    def _called(self, what: str) -> None:
        number = len(self.calls)
        self.calls.append(what)
        if number == self.fails_at or (
            self.for_good and self.fails_at is not None and number > self.fails_at
        ):
            raise ServeError(f"no connection ({what})")
