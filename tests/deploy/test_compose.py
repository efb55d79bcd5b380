"""compose.yaml: closed by default, and in step with the programs and files that it names."""

import re
from pathlib import Path

import pytest
import yaml

from multitask_client.__main__ import _parser as client_parser
from multitask_core import signature
from multitask_core.config import load
from multitask_export.__main__ import _parse as parse_export
from multitask_serve import server
from multitask_serve.cli import _parser as serve_parser
from multitask_train.__main__ import _parser as train_parser
from multitask_train.settings import FitSettings

JOBS = {"train", "export", "publish", "rollback", "client"}
SERVERS = {"triton", "prometheus", "probe", "grafana"}
# What scripts/run_all.sh makes; a checkout does not have them.
MADE = {"./data", "./runs", "./artifacts"}


def default(text):
    """The text as Compose fills it in when the environment says nothing."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def mounts(service, kind):
    return [volume for volume in service.get("volumes", []) if volume["type"] == kind]


def words(service):
    return [default(word) for word in (service.get("entrypoint") or []) + service["command"]]


def test_the_services_are_the_ones_that_these_tests_know(compose):
    assert compose["services"].keys() == JOBS | SERVERS


@pytest.mark.parametrize("name", sorted(JOBS | SERVERS))
def test_every_service_is_closed(compose, name):
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    assert not default(service.get("user", "1000")).startswith(("0", "root"))


@pytest.mark.parametrize("name", sorted(JOBS | SERVERS))
def test_images_are_pinned(compose, root, name):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    service = compose["services"][name]
    image, tag = service["image"].split(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    if "build" in service:
        assert tag == version
        assert image.startswith("multitask-")
        assert (root / service["build"]["dockerfile"]).is_file()


def test_ports_are_open_to_this_machine_alone(compose):
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert {name for name, given in ports.items() if given} == SERVERS - {"probe"}
    filled = [default(port) for given in ports.values() for port in given]
    assert all(port.startswith("127.0.0.1:") for port in filled), filled
    assert len({port.split(":")[1] for port in filled}) == len(filled)


def test_jobs_end_and_servers_come_back(compose, root):
    for name in JOBS:
        service = compose["services"][name]
        assert (service["profiles"], service["restart"]) == (["jobs"], "no")
    for name in SERVERS:
        service = compose["services"][name]
        assert service["restart"] == "unless-stopped"
        assert "profiles" not in service
        own = service.get("build", {}).get("dockerfile")
        in_image = own and "\nHEALTHCHECK " in (root / own).read_text(encoding="utf-8")
        assert "healthcheck" in service or in_image


def test_what_is_mounted_exists_and_only_jobs_may_write_to_the_checkout(compose, root):
    for name, service in compose["services"].items():
        for volume in mounts(service, "bind"):
            source = default(volume["source"])
            assert source in MADE or (root / source).is_dir(), (name, source)
            assert volume.get("read_only") or name in JOBS, (name, source)
    made = re.search(r"^mkdir -p (.+)$", (root / "scripts/run_all.sh").read_text(), re.M).group(1)
    assert {path.removeprefix("./") for path in MADE} <= set(made.split())


def test_named_volumes_and_networks_are_declared_and_used(compose):
    services = compose["services"].values()
    volumes = {volume["source"] for service in services for volume in mounts(service, "volume")}
    assert volumes == compose["volumes"].keys()
    assert {name for s in services for name in s["networks"]} == compose["networks"].keys()


def test_read_only_services_can_write_where_their_images_say(compose, root):
    for name in ("train", "triton"):
        service = compose["services"][name]
        text = (root / service["build"]["dockerfile"]).read_text(encoding="utf-8")
        (target,) = [volume["target"] for volume in mounts(service, "volume")]
        assert re.search(rf"install -d .*{re.escape(target)}", text)
        caches = dict(re.findall(r"(HF_HOME|XDG_CACHE_HOME)=(\S+)", text))
        assert all(path.startswith((target, "/tmp/")) for path in caches.values())


def test_the_server_may_finish_before_it_is_killed(compose):
    options = serve_parser().parse_args(["start", "--repository", "/models"])
    grace_s = int(compose["services"]["triton"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > options.drain_timeout + server._UNLOAD_S


def test_the_override_leaves_no_gpu(compose, cpu):
    on_gpu = {name for name, service in compose["services"].items() if "deploy" in service}
    assert on_gpu == {"train", "triton"}
    assert {name for name, s in cpu["services"].items() if s.get("deploy", 0) is None} == on_gpu
    assert cpu["services"]["triton"]["environment"] == {"MULTITASK_TARGET": "cpu"}
    assert compose["services"]["triton"]["environment"].keys() >= {"MULTITASK_TARGET"}


def test_train_runs_with_settings_that_are_accepted(compose, root):
    options, rest = train_parser().parse_known_args(words(compose["services"]["train"]))
    settings = load(FitSettings, root / options.config, rest)
    assert settings.run.output == Path("runs/demo")
    targets = {v["target"] for v in mounts(compose["services"]["train"], "bind")}
    assert {"/app/runs", f"/app/{options.config.parent}"} <= targets


def test_export_reads_what_train_writes_and_writes_what_triton_reads(compose):
    services = compose["services"]
    module, *arguments = words(services["export"])[2:]
    assert module == "multitask_export"
    options = parse_export(arguments)
    assert (str(options.checkpoint), str(options.output)) == ("runs/demo", "artifacts/demo")
    sources = {
        name: {v["target"]: v["source"] for v in mounts(services[name], "bind")}
        for name in ("export", "publish", "triton")
    }
    repository = sources["triton"]["/models"]
    assert sources["export"][str(options.repository)] == repository
    assert sources["publish"]["/models"] == repository


@pytest.mark.parametrize("name", ["publish", "rollback"])
def test_versions_change_through_the_service_triton(compose, name):
    module, *arguments = words(compose["services"][name])[2:]
    assert module == "multitask_serve"
    options = serve_parser().parse_args(arguments)
    assert (options.repository, options.url) == (Path("/models"), "triton:8001")
    token = {"MULTITASK_ADMIN_TOKEN": None}
    assert compose["services"][name]["environment"] == token
    assert compose["services"]["triton"]["environment"].items() >= token.items()
    assert compose["services"][name]["networks"] == compose["services"]["triton"]["networks"]


def test_the_client_asks_the_service_triton(compose):
    module, *arguments = words(compose["services"]["client"])[2:]
    assert module == "multitask_client"
    options = client_parser().parse_args(arguments)
    assert options.url == "triton:8001"
    assert options.texts
    assert set(compose["services"]["client"]["networks"]) <= set(
        compose["services"]["triton"]["networks"]
    )


def test_prometheus_and_grafana_find_their_files_and_each_other(compose, root, read_yaml):
    def inside(service, path):
        """The file of the checkout that a service sees as `path`."""
        for volume in mounts(compose["services"][service], "bind"):
            if path.startswith(volume["target"] + "/"):
                return root / volume["source"] / path.removeprefix(volume["target"] + "/")
        raise AssertionError(f"{service} does not see {path}")

    command = compose["services"]["prometheus"]["command"]
    (config,) = [w.split("=")[1] for w in command if w.startswith("--config.file=")]
    assert inside("prometheus", config).is_file()
    settings = read_yaml("prometheus/prometheus.yml")
    assert all(inside("prometheus", path).is_file() for path in settings["rule_files"])
    metrics, ready = settings["scrape_configs"]
    ports = serve_parser().parse_args(["start", "--repository", "/models"])
    (given,) = metrics["static_configs"]
    assert given["targets"] == [f"triton:{ports.metrics_port}"]

    (probed,) = ready["static_configs"]
    assert probed["targets"] == [
        f"http://triton:{ports.http_port}/v2/models/{signature.TEXT_MODEL}/ready"
    ]
    # Its alerts and the metrics' name the same server.
    assert [probed["labels"]["instance"]] == given["targets"]
    assert ready["relabel_configs"][-1]["replacement"].split(":")[0] in compose["services"]
    (option,) = compose["services"]["probe"]["command"]
    modules = yaml.safe_load(inside("probe", option.split("=")[1]).read_text())["modules"]
    assert set(ready["params"]["module"]) <= modules.keys()

    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read_yaml("grafana/provisioning/dashboards/multitask.yml")["providers"]
    home = compose["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert inside("grafana", home).is_file()
    assert str(Path(home).parent) == provider["options"]["path"]
