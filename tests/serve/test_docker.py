"""What the Dockerfiles say agrees with the rest of the checkout."""

import re
from pathlib import Path

import pytest

from multitask_serve import Ports, TritonServer

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile.triton", "Dockerfile.train")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name):
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \n]+)", read(name), re.MULTILINE))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_and_run_without_root(name):
    text = read(name)
    tags = re.findall(r"^ARG \w+_TAG=(.+)$", text, re.MULTILINE)
    assert tags
    assert not any("latest" in tag for tag in tags)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "1000:1000"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_all_that_builds_the_wheel_is_copied_and_not_ignored(name):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    packages = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {path.split("/")[0] for path in packages["packages"] + [*packages["force-include"]]}
    copied = {
        word
        for line in re.findall(r"^COPY (.+) \S+$", read(name), re.MULTILINE)
        for word in line.split()
    }
    allowed = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert folders <= copied
    assert copied <= allowed


def test_the_container_starts_triton_as_the_launcher_does(tmp_path):
    command = re.search(r"^CMD (\[.+\])$", read("Dockerfile.triton"), re.MULTILINE).group(1)
    server = TritonServer(tmp_path, "cpu")
    server.ports = Ports(8001, 8000, 8002)
    given = {option.split("=")[0]: option for option in re.findall(r"--[a-z-]+[^\s\"]*", command)}
    launcher = {option.split("=")[0]: option for option in server._options()}
    assert given.keys() <= launcher.keys()
    for name in ("--disable-auto-complete-config", "--strict-readiness", "--exit-on-error"):
        assert given[name] == launcher[name]


def test_the_base_dependencies_are_in_the_servers_lock():
    base, engine = re.findall(r"grep -E '\^\((.+)\)=='", read("Dockerfile.triton"))
    assert set(base.split("|")) <= pins("requirements-server.txt").keys()
    assert set(engine.split("|")) <= pins("requirements.txt").keys()
    assert "numpy" not in f"{base}|{engine}".split("|")


def test_the_training_image_has_the_pinned_torch():
    tag = re.search(r"^ARG PYTORCH_TAG=(.+)$", read("Dockerfile.train"), re.MULTILINE).group(1)
    assert tag.split("-")[0] == pins("requirements.txt")["torch"]
