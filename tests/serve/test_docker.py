"""What the Dockerfiles say agrees with the rest of the checkout."""

import json
import re
import shlex
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from multitask_export.configs import CONTAINER, ENGINE_CACHE
from multitask_serve.cli import _parser

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile.triton", "Dockerfile.train")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name):
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \n]+)", read(name), re.MULTILINE))


def stage(name, title):
    """The instructions of one build stage, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", read(name), flags=re.MULTILINE).replace("\\\n", " ")
    return re.search(rf"^FROM \S+ AS {title}$(.*?)(?=^FROM |\Z)", text, re.M | re.S).group(1)


def entry_point():
    line = re.search(r"^ENTRYPOINT (\[.+\])$", stage("Dockerfile.triton", "serve"), re.MULTILINE)
    return json.loads(line.group(1))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_and_run_without_root(name):
    text = read(name)
    tags = re.findall(r"^ARG \w+_TAG=(.+)$", text, re.MULTILINE)
    assert tags
    assert not any("latest" in tag for tag in tags)
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE))
    images = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages
    assert all(re.fullmatch(r"\S+:\$\{\w+_TAG\}", image) for image in images)
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
    models = {
        re.sub(r"^triton_models/\w+/", "triton_models/*/", p) for p in packages["force-include"]
    }
    assert models <= allowed
    assert all((ROOT / path).exists() for path in copied)


def test_the_two_triton_targets_that_others_name_exist():
    assert stage("Dockerfile.triton", "engine")
    assert "--target engine" in read("Makefile")
    assert yaml.safe_load(read("compose.yaml"))["services"]["triton"]["build"]["target"] == "serve"


def test_the_image_is_the_one_that_the_exporter_writes_for():
    tag = re.search(r"^ARG TRITON_TAG=(.+)$", read("Dockerfile.triton"), re.MULTILINE).group(1)
    assert tag == f"{CONTAINER}-py3"
    assert f"install -d -o 1000 -g 1000 {ENGINE_CACHE}" in stage("Dockerfile.triton", "base")


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
def test_the_entry_point_becomes_the_launcher_with_options_it_knows(target):
    shell, flag, script, _name = entry_point()
    assert (shell, flag) == ("sh", "-c")
    # `exec`: the launcher, not the shell, gets the SIGTERM of `docker stop`.
    command = re.fullmatch(r'exec python3 -m multitask_serve (.+) "\$@"', script).group(1)
    values = dict(re.findall(r"(\w+)=(\S+)", stage("Dockerfile.triton", "serve")))
    values["MULTITASK_TARGET"] = target
    given = [re.sub(r"^\$(\w+)$", lambda m: values[m[1]], word) for word in shlex.split(command)]
    options = _parser().parse_args(given)
    assert (options.target, options.host) == (target, "0.0.0.0")
    assert options.repository == Path("/models")
    assert options.ready_timeout == float(values["MULTITASK_READY_TIMEOUT_S"])


def test_the_build_tries_the_modules_that_the_models_are_made_of():
    checked = (
        re.search(r'-c "import (.+?)"', stage("Dockerfile.triton", "base")).group(1).split(", ")
    )
    assert all(find_spec(name) for name in checked)
    code = "".join(path.read_text() for path in (ROOT / "triton_models").glob("*/1/model.py"))
    services = set(
        re.findall(r"^from (multitask_core\.(?:\w*service|session)) ", code, re.MULTILINE)
    )
    assert services == set(checked)


def test_health_is_what_the_launcher_waits_for():
    check = re.search(r"HEALTHCHECK .+ CMD (\[.+\])$", stage("Dockerfile.triton", "serve"), re.M)
    program = json.loads(check.group(1))[-1]
    compile(program, "healthcheck", "exec")
    default = _parser().parse_args(["start", "--repository", "/models"]).http_port
    assert f"http://127.0.0.1:{default}/v2/models/multitask/ready" in program


def test_the_server_gets_the_locked_packages_and_neither_torch_nor_numpy():
    base, engine = re.findall(r"grep -E '\^\((.+)\)=='", read("Dockerfile.triton"))
    packages = {*base.split("|"), *engine.split("|")}
    assert packages <= pins("requirements.txt").keys()
    assert not packages & {"numpy", "torch", "transformers"}
    server = pins("requirements-server.txt")
    assert {"tokenizers", "pydantic", "pyyaml"} <= {*base.split("|")} & server.keys()


def test_what_the_server_packages_need_is_there():
    (base, _) = re.findall(r"grep -E '\^\((.+)\)=='", read("Dockerfile.triton"))
    packages = set(base.split("|"))
    # numpy is the image's own; tokenizers asks for the hub's client only when it downloads.
    there = packages | {"numpy", "huggingface-hub"}
    for package in packages:
        for line in metadata.requires(package) or []:
            need = Requirement(line)
            extra = {"extra": "grpc" if package == "tritonclient" else ""}
            if need.marker is None or need.marker.evaluate(extra):
                assert canonicalize_name(need.name) in there, (package, line)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_onnxruntime_reports_nothing(name):
    assert re.search(r"^ENV .*\bORT_DISABLE_TELEMETRY=1\b", read(name), re.MULTILINE)


def test_the_training_image_has_the_pinned_torch():
    tag = re.search(r"^ARG PYTORCH_TAG=(.+)$", read("Dockerfile.train"), re.MULTILINE).group(1)
    assert tag.split("-")[0] == pins("requirements.txt")["torch"]
