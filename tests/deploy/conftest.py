"""The deployment files, read as their programs read them."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


class ComposeLoader(yaml.SafeLoader):
    """Knows Compose's own tag: `!reset` takes away what the file before it gave."""


ComposeLoader.add_constructor("!reset", lambda loader, node: None)


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def compose():
    return yaml.load((ROOT / "compose.yaml").read_text(encoding="utf-8"), ComposeLoader)


@pytest.fixture(scope="session")
def cpu():
    return yaml.load((ROOT / "compose.cpu.yaml").read_text(encoding="utf-8"), ComposeLoader)


@pytest.fixture(scope="session")
def read_yaml():
    return lambda path: yaml.safe_load((ROOT / "deploy" / path).read_text(encoding="utf-8"))
