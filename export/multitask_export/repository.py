"""An artifact → the Triton model repository: version folders, warm-up data, all targets' configs.

`configs/<target>.pbtxt` is chosen with `--model-config-name=<target>`; `config.pbtxt` is the
container's CPU target.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import artifact, manifest, signature
from multitask_core.artifact import Artifact
from multitask_core.errors import ArtifactError
from multitask_core.files import link_or_copy, staged_folder, write_text
from multitask_export import warmup
from multitask_export.configs import Served, config_text, tensor_config, text_config
from multitask_export.variants import TARGETS

DEFAULT_TARGET = "cpu"

log = logging.getLogger(__name__)


def write_repository(source: Path, repository: Path, version: int = 1) -> None:
    """Put an artifact into a repository as one version of both models, configs last.

    Each version folder takes its place in one rename. A target for which no graph passed its gates
    gets no config, and an old one is removed. Raises ArtifactError.
    """
    exported = Artifact.open(source)
    default = exported.manifest.config["default"]
    shared = [manifest.NAME, artifact.LABELS, artifact.TOKENIZER]
    graphs = [exported.graph(name).name for name in exported.graphs]
    files = {
        signature.TENSOR_MODEL: [*shared, *graphs],
        signature.TEXT_MODEL: [*shared, exported.graph(default).name],
    }
    for model, names in files.items():
        _write_version(exported, repository / model / str(version), model, names)
    encoder = exported.text_encoder()
    warmup.write_text_data(repository / signature.TEXT_MODEL, encoder)
    warmup.write_tensor_data(repository / signature.TENSOR_MODEL, encoder)
    for target in TARGETS:
        for model in files:
            (repository / model / "configs" / f"{target}.pbtxt").unlink(missing_ok=True)
        if target not in exported.manifest.config["targets"]:
            log.warning("no graph passed its gates for the target %s; it gets no config", target)
            continue
        served = Served.from_artifact(exported, target)
        for config in (text_config(served), tensor_config(served)):
            _write_config(config, repository / config.name, target)


def _write_version(exported: Artifact, target: Path, model: str, names: Iterable[str]) -> None:
    code = server_model(model).read_bytes()
    with staged_folder(target) as stage:
        (stage / "model.py").write_bytes(code)
        for name in names:
            link_or_copy(exported.folder / name, stage / name)


def _write_config(config: pb.ModelConfig, folder: Path, target: str) -> None:
    text = config_text(config)
    write_text(folder / "configs" / f"{target}.pbtxt", text)
    if target == DEFAULT_TARGET:
        write_text(folder / "config.pbtxt", text)


def server_model(model: str) -> Path:
    """The hand-written model.py of a Triton model: in the wheel, or in the checkout."""
    here = Path(__file__).parent
    for root in (here / "triton_models", here.parents[1] / "triton_models"):
        path = root / model / "1" / "model.py"
        if path.is_file():
            return path
    raise ArtifactError(f"the installation lacks triton_models/{model}/1/model.py; install again")
