"""One real Triton with the tiny model, shared by a module's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_client import Client
from multitask_core import signature
from multitask_core.serving import Serving
from multitask_export.export import export_artifact
from multitask_export.repository import write_repository
from multitask_serve import Ports, TritonServer


@pytest.fixture(scope="session")
def repositories(
    tiny_repository: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The text model with its own session, and over the tensor model in both layouts."""
    folder = tmp_path_factory.mktemp("repositories")
    padded = export_artifact(
        tiny_checkpoint,
        folder / "artifact",
        variants=["fp32-fused"],
        serving=Serving(engine="onnxruntime"),
    )
    write_repository(padded, folder / "padded")
    return {
        "in-process": tiny_repository,
        "in-process-openvino": _on_openvino(tiny_repository, folder / "openvino"),
        "bls-packed": _over_bls(tiny_repository, folder / "bls-packed"),
        "bls-padded": _over_bls(folder / "padded", folder / "bls-padded"),
    }


def _over_bls(source: Path, repository: Path) -> Path:
    """The embedded target with the text model calling the tensor model, as `cpu` and GPU do."""
    shutil.copytree(source, repository)
    path = repository / signature.TEXT_MODEL / "configs" / "embedded.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    config.parameters["encoder"].string_value = "bls"
    del config.model_warmup[:]  # the tensor model may not be there yet
    path.write_text(text_format.MessageToString(config))
    return repository


def _on_openvino(source: Path, repository: Path) -> Path:
    """The text model's own session on the other engine, in FP32."""
    shutil.copytree(source, repository)
    path = repository / signature.TEXT_MODEL / "configs" / "embedded.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    parameter = config.parameters["serving"]
    serving = Serving.model_validate_json(parameter.string_value)
    parameter.string_value = serving.model_copy(update={"engine": "openvino"}).model_dump_json()
    path.write_text(text_format.MessageToString(config))
    return repository


@pytest.fixture(
    scope="module", params=["in-process", "in-process-openvino", "bls-packed", "bls-padded"]
)
def served(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(served: str, repositories: dict[str, Path]) -> Iterator[TritonServer]:
    with TritonServer(repositories[served], "embedded", Ports(0, 0, 0)) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url, deadline_s=60) as one:
        yield one
