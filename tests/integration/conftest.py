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
from multitask_serve import Ports, TritonServer


@pytest.fixture(scope="session")
def bls_repository(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded target with the text model calling the tensor model, as `cpu` and GPU do."""
    repository = tmp_path_factory.mktemp("repositories") / "bls"
    shutil.copytree(tiny_repository, repository)
    path = repository / signature.TEXT_MODEL / "configs" / "embedded.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    config.parameters["encoder"].string_value = "bls"
    path.write_text(text_format.MessageToString(config))
    return repository


@pytest.fixture(scope="module", params=["in-process", "bls"])
def server(
    request: pytest.FixtureRequest, tiny_repository: Path, bls_repository: Path
) -> Iterator[TritonServer]:
    repository = tiny_repository if request.param == "in-process" else bls_repository
    with TritonServer(repository, "embedded", Ports(0, 0, 0)) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url, deadline_s=60) as one:
        yield one
