"""Reads a model repository: folders, configs, manifests and what the rules ask of a graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import artifact, manifest
from multitask_core.errors import ArtifactError, ConfigError

CONFIG = "config.pbtxt"
CONFIGS = "configs"

ONNXRUNTIME = "onnxruntime"
TENSORRT = "tensorrt"
_BACKENDS = {"onnxruntime_onnx": ONNXRUNTIME, "tensorrt_plan": TENSORRT}

_DATATYPES: dict[int, str] = {
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT8: "TYPE_INT8",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.BFLOAT16: "TYPE_BF16",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
    onnx.TensorProto.STRING: "TYPE_STRING",
}


class TensorInfo(NamedTuple):
    """Triton's name of a datatype, and dims: -1 varies, None is not known."""

    datatype: str
    dims: tuple[int, ...] | None


class Graph(NamedTuple):
    """An ONNX file. half: some of its weights are FP16."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    half: bool


@dataclass
class Model:
    """A folder of the repository. versions: its version folders, oldest first."""

    folder: Path
    versions: list[Path]
    configs: list[Config] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name, which is the model's."""
        return self.folder.name

    @cached_property
    def window(self) -> int | None:
        """Longest row in pieces, from the newest version's manifest where there is one."""
        config = manifest_config(self.versions[-1]) if self.versions else {}
        windowing = config.get("windowing")
        length = windowing.get("max_length") if isinstance(windowing, dict) else None
        return length if isinstance(length, int) and length > 0 else None

    @cached_property
    def _graphs(self) -> dict[Path, Graph]:
        return {}

    def graph(self, path: Path) -> Graph:
        """Read a graph once; raises ArtifactError where it is missing or damaged."""
        if path not in self._graphs:
            self._graphs[path] = _read_graph(path)
        return self._graphs[path]


@dataclass(frozen=True)
class Config:
    """One config. path: relative to the repository; target: its file's name without suffix."""

    path: str
    target: str
    message: Any
    model: Model

    @property
    def backend(self) -> str:
        """The backend, by its name or by the older `platform`."""
        return self.message.backend or _BACKENDS.get(self.message.platform, "")

    @property
    def native(self) -> bool:
        """Whether Triton itself hands concatenated tensors to a graph."""
        return self.backend in (ONNXRUNTIME, TENSORRT)

    @property
    def ensemble(self) -> bool:
        """Whether this only chains other models."""
        return bool(self.message.platform == "ensemble")

    @property
    def kinds(self) -> list[int]:
        """The kind of every instance group."""
        return [group.kind for group in self.message.instance_group]

    @property
    def on_gpu(self) -> bool:
        """Whether some instance asks for a GPU."""
        return pb.ModelInstanceGroup.KIND_GPU in self.kinds

    def parameter(self, key: str) -> str:
        """A top-level parameter, "" where it is not set."""
        parameters = self.message.parameters  # asking for an absent key would add it
        return str(parameters[key].string_value) if key in parameters else ""

    def graph_file(self, version: Path) -> Path | None:
        """The graph that this config uses in a version folder; None where it names none."""
        if self.backend == ONNXRUNTIME:
            path = version / (self.message.default_model_filename or "model.onnx")
            return path / "model.onnx" if path.is_dir() else path
        if self.backend != "python" or self.parameter("encoder") == "bls":
            return None
        graphs = manifest_config(version).get("graphs")
        name = graphs.get(self.parameter("variant")) if isinstance(graphs, dict) else None
        return version / name if isinstance(name, str) else None

    def graphs(self) -> Iterator[tuple[Path, Graph]]:
        """Version folders and their graphs, where these can be read."""
        for version in self.model.versions:
            path = self.graph_file(version)
            try:
                if path is not None:
                    yield version, self.model.graph(path)
            except ArtifactError:
                continue


@dataclass
class Repository:
    """A model repository as it was found.

    broken: configs that cannot be parsed, with the reason. stray: folders that hold no config.
    """

    folder: Path
    models: list[Model] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Repository:
        """Read every config; raises ConfigError where there is no folder or no model."""
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder; name a Triton model repository")
        repository = cls(folder)
        try:
            for child in sorted(folder.iterdir()):
                if child.is_dir():
                    repository._add(child)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be read: {error}") from error
        if not repository.models:
            parent = f"; it is a model itself, so name {folder.resolve().parent}"
            raise ConfigError(
                f"{folder} holds no model: no folder in it has a {CONFIG} or {CONFIGS}/*.pbtxt"
                f"{parent if (folder / CONFIG).is_file() else '; name a Triton model repository'}"
            )
        return repository

    @property
    def configs(self) -> Iterator[Config]:
        """Every config that could be parsed."""
        for model in self.models:
            yield from model.configs

    def _add(self, folder: Path) -> None:
        try:
            paths = [folder / CONFIG, *sorted((folder / CONFIGS).glob("*.pbtxt"))]
            paths = [path for path in paths if path.exists()]
            versions = [path for path in folder.iterdir() if is_version(path)]
        except OSError as error:
            self.broken[folder.name] = str(error)
            return
        if not paths:
            self.stray.append(folder.name)
            return
        model = Model(folder, sorted(versions, key=lambda path: int(path.name)))
        self.models.append(model)
        for path in paths:
            self._parse(model, path)

    def _parse(self, model: Model, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        try:
            message = text_format.Parse(path.read_text("utf-8"), pb.ModelConfig())
        except (text_format.ParseError, OSError, ValueError) as error:
            self.broken[name] = str(error)
            return
        model.configs.append(Config(name, path.stem, message, model))


def is_version(path: Path) -> bool:
    """Whether Triton takes a path for a version folder: a number without leading zeros."""
    return re.fullmatch("[1-9][0-9]*", path.name) is not None and path.is_dir()


def manifest_config(version: Path) -> dict[str, Any]:
    """The settings in a version folder's manifest; empty where it has none that can be read."""
    try:
        return manifest.read(version, artifact.KIND).config
    except ArtifactError:
        return {}


def enum_name(enum: Any, value: int) -> str:  # noqa: ANN401  protobuf has no type for it
    """The name of an enum's value, or its number where it has none."""
    return str(enum.Name(value)) if value in enum.values() else str(value)


def datatype(value: int) -> str:
    """The name of a config's datatype."""
    return enum_name(pb.DataType, value)


def _read_graph(path: Path) -> Graph:
    if not path.is_file():
        raise ArtifactError(f"{path.name} is missing")
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError, ValueError) as error:
        raise ArtifactError(f"{path.name} is no ONNX file: {error}") from error
    weights = {tensor.name for tensor in graph.initializer}
    return Graph(
        {one.name: _info(one) for one in graph.input if one.name not in weights},
        {one.name: _info(one) for one in graph.output},
        any(one.data_type == onnx.TensorProto.FLOAT16 for one in graph.initializer),
    )


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    name = _DATATYPES.get(tensor.elem_type, f"ONNX type {tensor.elem_type}")
    if not tensor.HasField("shape"):
        return TensorInfo(name, None)
    dims = (one.dim_value if one.HasField("dim_value") else -1 for one in tensor.shape.dim)
    return TensorInfo(name, tuple(dims))
