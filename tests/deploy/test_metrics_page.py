"""A real Triton shows the metrics that the rules and the dashboard read."""

import json
import re
import time
import urllib.request

import pytest
import yaml

from multitask_client import Client
from multitask_client.errors import BadRequest
from multitask_serve import Ports, TritonServer

pytestmark = pytest.mark.triton

# Shown where there is a GPU, or when a long text was put aside.
ABSENT_HERE = r"nv_gpu_\w+|multitask_deferred_total"


@pytest.fixture
def wanted(root):
    """Every series that is read, by name."""
    rules = yaml.safe_load((root / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))
    path = root / "deploy/grafana/dashboards/multitask.json"
    panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in panels for target in panel.get("targets", [])]
    names = set(re.findall(r"\b(?:nv|multitask)_\w+", " ".join(expressions)))
    return {name for name in names if not re.fullmatch(ABSENT_HERE, name)} - {"multitask_next"}


def test_every_series_is_on_the_page(tiny_repository, tmp_path, wanted):
    def missing(server):
        with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
            page = answer.read().decode()
        return wanted - set(re.findall(r"^(\w+)[{ ]", page, re.MULTILINE))

    with TritonServer(tiny_repository, "embedded", Ports(), state=tmp_path) as server:
        with Client(server.grpc_url, deadline_s=60) as client:
            client.predict(["play jazz in Lyon"])
            with pytest.raises(BadRequest):
                client.predict([" "])
        # The text model brings its counts to the page now and then.
        for _ in range(300):
            if not missing(server):
                break
            time.sleep(0.1)
        assert missing(server) == set()
