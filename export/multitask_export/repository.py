"""An artifact → the Triton model repository: version folders and configs for every target.

Configs are protobuf messages written with text_format. `configs/<target>.pbtxt` is chosen with
`--model-config-name=<target>`; `config.pbtxt` is the container's CPU target.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import artifact, manifest, signature
from multitask_core.artifact import Artifact
from multitask_core.batching import MAX_ROWS, TOKEN_BUDGET
from multitask_core.errors import ArtifactError
from multitask_core.files import link_or_copy, staged_folder, write_text
from multitask_core.labels import LabelSchema
from multitask_core.signature import Signature, Tensor
from multitask_core.text import MAX_CHARS, MAX_PIECES

TARGETS = ("embedded", "cpu")
DEFAULT_TARGET = "cpu"

_DATATYPES = {"INT64": pb.TYPE_INT64, "FP32": pb.TYPE_FP32, "BYTES": pb.TYPE_STRING}


def write_repository(source: Path, repository: Path, version: int = 1) -> None:
    """Put an artifact into a repository as one version of both models, configs last.

    Each version folder takes its place in one rename. Raises ArtifactError.
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
    for target in TARGETS:
        for config in model_configs(exported.schema, target, default, exported.graphs[default]):
            _write_config(config, repository / config.name, target)


def model_configs(
    schema: LabelSchema, target: str, variant: str, graph: str
) -> tuple[pb.ModelConfig, pb.ModelConfig]:
    """The configs of the text and the tensor model for one target."""
    return _text_config(schema, target, variant), _tensor_config(schema, target, variant, graph)


def config_text(config: pb.ModelConfig) -> str:
    """A config as pbtxt."""
    header = "# Written by multitask_export from the label schema; do not edit.\n"
    return header + str(text_format.MessageToString(config))


def _text_config(schema: LabelSchema, target: str, variant: str) -> pb.ModelConfig:
    config = _base(signature.text_signature(schema))
    config.backend = "python"
    _set_parameters(
        config,
        encoder="in-process" if target == "embedded" else "bls",
        variant=variant,
        threads="0",
        token_budget=str(TOKEN_BUDGET),
        max_chars=str(MAX_CHARS),
        max_pieces=str(MAX_PIECES),
    )
    classes = json.dumps(list(schema.classes), ensure_ascii=False)
    _set_parameters(config, **{signature.CLASSES_PARAMETER: classes})
    return config


def _tensor_config(schema: LabelSchema, target: str, variant: str, graph: str) -> pb.ModelConfig:
    config = _base(signature.tensor_signature(schema))
    if target == "embedded":
        config.backend = "python"
        _set_parameters(config, variant=variant, threads="0")
    else:
        config.backend = "onnxruntime"
        config.default_model_filename = graph
    return config


def _base(model: Signature) -> pb.ModelConfig:
    config = pb.ModelConfig(name=model.model, max_batch_size=MAX_ROWS)
    config.input.extend(_tensor(pb.ModelInput, tensor) for tensor in model.inputs)
    config.output.extend(_tensor(pb.ModelOutput, tensor) for tensor in model.outputs)
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)
    config.dynamic_batching.SetInParent()
    return config


def _tensor(kind: type, tensor: Tensor) -> object:
    return kind(name=tensor.name, data_type=_DATATYPES[tensor.datatype], dims=tensor.dims)


def _set_parameters(config: pb.ModelConfig, **values: str) -> None:
    for key, value in values.items():
        config.parameters[key].string_value = value


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
