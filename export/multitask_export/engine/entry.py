"""The plan's place in the model repository: files of one version, configs of both models."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import artifact as artifacts
from multitask_core import manifest, signature
from multitask_core.artifact import Artifact
from multitask_core.batching import MAX_ROWS
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.files import write_bytes, write_json, write_text
from multitask_core.labels import LabelSchema
from multitask_export.repository import changing

# ONNX Runtime with TensorRT inside, which the export writes; and the plan on the tensorrt backend.
BASE = "tensorrt"
TARGET = "tensorrt-plan"
RECORD = "engine.json"

_MODELS = (signature.TENSOR_MODEL, signature.TEXT_MODEL)
_REPLACED = (
    "platform",
    "default_model_filename",
    "input",
    "output",
    "instance_group",
    "optimization",
    "parameters",
)
_HEADER = "# Written by multitask_export engine; do not edit.\n"


def served_version(repository: Path) -> int:
    """The version that the target tensorrt serves; 1 where its config names none."""
    return max(_served_versions(repository), default=1)


@dataclass(frozen=True)
class Entry:
    """A version of the tensor model in a repository that holds the artifact's export."""

    repository: Path
    version: Path

    @classmethod
    def open(cls, repository: Path, version: int, artifact: Artifact) -> Entry:
        """Check all that publishing needs, for a build takes minutes.

        Raises ArtifactError for a version that is missing or of another artifact and for a missing
        or unfit config, ConfigError for a version that the configs do not serve and for a
        repository that cannot be written.
        """
        folder = repository / signature.TENSOR_MODEL / str(version)
        if manifest.read(folder, artifacts.KIND).identity != artifact.manifest.identity:
            raise ArtifactError(
                f"{folder} holds another artifact than {artifact.folder}; name its own version "
                "with --version, or put it into the repository first (multitask_serve publish)"
            )
        _refuse_unserved(repository, version)
        entry = cls(repository, folder)
        entry._text_config()
        entry._config(artifact.schema, {})
        entry._records()
        configs = [entry._config_path(model).parent for model in _MODELS]
        for path in (folder, *configs):
            if path.is_dir() and not os.access(path, os.W_OK):
                raise ConfigError(
                    f"{path} cannot be written; mount the repository writable and run as its owner "
                    "(docker run --user)"
                )
        return entry

    def publish(
        self, plan: Path, capability: str, record: Mapping[str, Any], schema: LabelSchema
    ) -> None:
        """Write the plan, its record and, last, the configs that name it; each atomically.

        Raises ConfigError where another version became live meanwhile, or is becoming it.
        """
        with changing(self.repository):
            _refuse_unserved(self.repository, int(self.version.name))
            self._publish(plan, capability, record, schema)

    def _publish(
        self, plan: Path, capability: str, record: Mapping[str, Any], schema: LabelSchema
    ) -> None:
        write_bytes(self.version / plan.name, plan.read_bytes())
        engines = {**self._records(), capability: dict(record)}
        write_json(self.version / RECORD, {"engines": dict(sorted(engines.items()))})
        write_bytes(self._config_path(signature.TEXT_MODEL), self._text_config())
        config = self._config(schema, {capability: plan.name})
        text = _HEADER + str(text_format.MessageToString(config))
        write_text(self._config_path(signature.TENSOR_MODEL), text)

    def _records(self) -> dict[str, Any]:
        """The engines of other GPUs that this version has already."""
        path = self.version / RECORD
        try:
            return dict(json.loads(path.read_text("utf-8"))["engines"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path} is damaged: {error}; remove it and build again") from error

    def _config(self, schema: LabelSchema, plans: Mapping[str, str]) -> pb.ModelConfig:
        """The tensor model on the tensorrt backend; `plans` join those that are named already.

        Queue, warm-up and version policy are those of the target tensorrt. There is no default
        file: on a GPU without a plan the load must fail and say so.
        """
        model = signature.tensor_signature(schema)
        base = self._config_path(signature.TENSOR_MODEL, BASE)
        config = _parse(base) if base.exists() else pb.ModelConfig()
        for field in _REPLACED:
            config.ClearField(field)
        config.name, config.backend, config.max_batch_size = model.model, "tensorrt", MAX_ROWS
        for kind, tensors in ((config.input, model.inputs), (config.output, model.outputs)):
            for tensor in tensors:
                datatype = getattr(pb, f"TYPE_{tensor.datatype}")
                kind.add(name=tensor.name, data_type=datatype, dims=tensor.dims)
        # One instance: engines with dynamic shapes are not shared between instances.
        config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=1)
        config.dynamic_batching.SetInParent()
        config.version_policy.specific.versions[:] = [int(self.version.name)]
        config.cc_model_filenames.update({**self._plans(), **plans})
        return config

    def _plans(self) -> dict[str, str]:
        path = self._config_path(signature.TENSOR_MODEL)
        return dict(_parse(path).cc_model_filenames) if path.exists() else {}

    def _text_config(self) -> bytes:
        """The text model's config for TensorRT, which serves a plan as well."""
        path = self._config_path(signature.TEXT_MODEL, BASE)
        if not path.is_file():
            raise ArtifactError(
                f"{path} is missing: export into the repository first, with a release that writes "
                "the target tensorrt"
            )
        layout = _parse(path).parameters["layout"].string_value
        if layout not in ("", "padded"):
            raise ArtifactError(f"{path} sends {layout} rows; the plan takes padded ones")
        return path.read_bytes()

    def _config_path(self, model: str, target: str = TARGET) -> Path:
        return self.repository / model / "configs" / f"{target}.pbtxt"


def _refuse_unserved(repository: Path, version: int) -> None:
    served = _served_versions(repository)
    if served and version not in served:
        raise ConfigError(
            f"the plan's config would serve version {served[-1]}, as the repository's others do, "
            f"and {version} is not that one: name the live version, or make {version} live first "
            f"(multitask_serve publish, or rollback --to {version})"
        )


def _served_versions(repository: Path) -> list[int]:
    path = repository / signature.TEXT_MODEL / "configs" / f"{BASE}.pbtxt"
    return sorted(_parse(path).version_policy.specific.versions) if path.is_file() else []


def _parse(path: Path) -> pb.ModelConfig:
    try:
        return text_format.Parse(path.read_text("utf-8"), pb.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ArtifactError(f"{path} is no model config: {error}") from error
