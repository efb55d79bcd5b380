"""An artifact → the Triton model repository: version folders, warm-up data, all targets' configs.

`configs/<target>.pbtxt` is chosen with `--model-config-name=<target>`; `config.pbtxt` is the
container's CPU target. The configs name the versions that are served, so a version folder by itself
changes nothing; `python -m multitask_serve publish` writes one beside the live one and switches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import artifact, manifest, signature
from multitask_core.artifact import Artifact
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.files import link_or_copy, staged_folder, write_text
from multitask_core.locks import locked
from multitask_export import warmup
from multitask_export.configs import Served, config_text, tensor_config, text_config
from multitask_export.variants import TARGETS

DEFAULT_TARGET = "cpu"
CONFIG = "config.pbtxt"
CONFIGS = "configs"
# Labelled sentences in an artifact: publishing compares a new version with the live one on them.
SAMPLES = "samples.jsonl"
MODELS = (signature.TENSOR_MODEL, signature.TEXT_MODEL)

log = logging.getLogger(__name__)


def write_repository(source: Path, repository: Path, version: int = 1) -> None:
    """Put an artifact into a repository as the served version of both models, configs last.

    Each version folder takes its place in one rename. A target for which no graph passed its gates
    gets no config, and an old one is removed. Raises ArtifactError, ConfigError for a repository
    whose versions are published, or that another command changes now.
    """
    exported = Artifact.open(source)
    with changing(repository):
        refuse_published(repository)
        write_version(exported, repository, version)
        write_warmup(exported, repository)
        for target in TARGETS:
            if target not in exported.manifest.config["targets"]:
                log.warning(
                    "no graph passed its gates for the target %s; it gets no config", target
                )
            for model in MODELS:
                write_config(exported, repository, model, target, [version])


def changing(repository: Path) -> AbstractContextManager[int]:
    """Keep other commands from changing a repository; ConfigError where one does already."""

    def refusal(holder: str) -> ConfigError:
        return ConfigError(
            f"another export, publish or rollback works on {repository} ({holder}): wait for it"
        )

    return locked(repository / artifact.LOCK, refusal)


def refuse_published(repository: Path) -> None:
    """Raise ConfigError where versions were published: an export there would replace what is live,
    uncompared and past the history.
    """
    if any((repository / name).is_file() for name in (artifact.HISTORY, artifact.JOURNAL)):
        raise ConfigError(
            f"versions were published to {repository}: export without --repository, then "
            f"python -m multitask_serve publish ARTIFACT --repository {repository}; or name another"
        )


def write_version(exported: Artifact, repository: Path, version: int) -> None:
    """Write the version folders of both models; every graph is checked. Raises ArtifactError."""
    default = exported.manifest.config["default"]
    shared = [manifest.NAME, artifact.LABELS, artifact.TOKENIZER]
    graphs = [exported.graph(name).name for name in exported.graphs]
    files = {
        signature.TENSOR_MODEL: [*shared, *graphs],
        signature.TEXT_MODEL: [*shared, exported.graph(default).name],
    }
    for model, names in files.items():
        _write_folder(exported, repository / model / str(version), model, names)


def write_warmup(exported: Artifact, repository: Path) -> None:
    """Write the warm-up data of both models, each file atomically."""
    encoder = exported.text_encoder()
    warmup.write_text_data(repository / signature.TEXT_MODEL, encoder)
    warmup.write_tensor_data(repository / signature.TENSOR_MODEL, encoder)


def write_config(
    exported: Artifact, repository: Path, model: str, target: str, versions: Sequence[int]
) -> None:
    """Write one model's config for a target, or remove it where the artifact has no graph for it.

    versions: those that the model serves. A file that says so already is left alone, because Triton
    loads a model anew whose config is newer.
    """
    paths = config_paths(repository, model, target)
    config = make_config(exported, model, target, versions)
    for path in paths:
        if config is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_text("utf-8") != config_text(config):
            write_text(path, config_text(config))


def make_config(
    exported: Artifact, model: str, target: str, versions: Sequence[int]
) -> pb.ModelConfig | None:
    """The config of one model for a target; None where the artifact has no graph for it."""
    if target not in exported.manifest.config["targets"]:
        return None
    served = Served.from_artifact(exported, target)
    make = text_config if model == signature.TEXT_MODEL else tensor_config
    return make(served, versions)


def config_paths(repository: Path, model: str, target: str) -> list[Path]:
    """The files that hold a model's config for a target."""
    default = [repository / model / CONFIG] if target == DEFAULT_TARGET else []
    return [repository / model / CONFIGS / f"{target}.pbtxt", *default]


def _write_folder(exported: Artifact, target: Path, model: str, names: Iterable[str]) -> None:
    code = server_model(model).read_bytes()
    with staged_folder(target) as stage:
        (stage / "model.py").write_bytes(code)
        for name in names:
            link_or_copy(exported.folder / name, stage / name)


def server_model(model: str) -> Path:
    """The hand-written model.py of a Triton model: in the wheel, or in the checkout."""
    here = Path(__file__).parent
    for root in (here / "triton_models", here.parents[1] / "triton_models"):
        path = root / model / "1" / "model.py"
        if path.is_file():
            return path
    raise ArtifactError(f"the installation lacks triton_models/{model}/1/model.py; install again")
