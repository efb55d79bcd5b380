"""A batching server with the same weights: TorchServe, a Java front end with Python workers.

    PYTHON benchmarks/peers/torchserve/server.py --checkpoint runs/demo --port 9000 --precision bf16

POST /predictions/multitask {"text": …} → {"label", "score", "entities": [{"type", "text", "start",
"end", "score"}]}. Needs a Java runtime (11 or later) on PATH. TorchServe is no longer maintained;
it is measured because many run it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from settings import Settings

_HANDLER = Path(__file__).with_name("handler.py")
_LOGGING = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %c %m%n"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


def main() -> None:
    """Serve until the process is ended."""
    settings = Settings.read(__doc__)
    settings.export()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="torchserve-") as name:
        folder = Path(name)
        write_archive(folder / "store")
        (folder / "config.properties").write_text(properties(settings, folder), "utf-8")
        (folder / "log4j2.xml").write_text(_LOGGING, "utf-8")
        server = subprocess.Popen(command(folder), env=environ(folder), cwd=folder)
        try:
            sys.exit(server.wait())
        finally:
            end_children()


def write_archive(store: Path) -> None:
    """The model's archive, unpacked; the weights stay in the checkpoint."""
    store.mkdir()
    archiver = [
        str(Path(sys.executable).with_name("torch-model-archiver")), "--model-name", "multitask",
        "--version", "1.0", "--handler", str(_HANDLER), "--export-path", str(store),
        "--archive-format", "no-archive",
    ]  # fmt: skip
    subprocess.run(archiver, check=True)


def properties(settings: Settings, folder: Path) -> str:
    """TorchServe's config: one model, batches, nothing of metrics or tokens."""
    model = {
        "defaultVersion": True,
        "marName": "multitask",
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.max_batch,
        "maxBatchDelay": max(1, round(1e3 * settings.batch_timeout_s)),
        "responseTimeout": 120,
    }
    grpc_inference, grpc_management = free_ports(2)
    lines = {
        "inference_address": f"http://127.0.0.1:{settings.port}",
        "management_address": f"unix:{folder}/management.sock",
        "metrics_address": f"unix:{folder}/metrics.sock",
        "grpc_inference_port": grpc_inference,
        "grpc_management_port": grpc_management,
        "job_queue_size": 1024,
        "number_of_gpu": 0,
        "disable_system_metrics": "true",
        "disable_token_authorization": "true",
        "enable_envvars_config": "false",
        "load_models": "multitask",
        "models": json.dumps({"multitask": {"1.0": model}}),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def command(folder: Path) -> list[str]:
    """TorchServe in the foreground."""
    return [
        sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots",
        "--disable-token-auth", "--model-store", str(folder / "store"),
        "--ts-config", str(folder / "config.properties"),
        "--log-config", str(folder / "log4j2.xml"),
    ]  # fmt: skip


def environ(folder: Path) -> dict[str, str]:
    """Its files stay in the folder; the workers find the model's code."""
    places = ("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION")
    return {**os.environ, **dict.fromkeys(places, str(folder)), "PYTHONPATH": sys.path[0]}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end_children() -> None:
    """Java does not end with the process that started it."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        child.terminate()
    for child in psutil.wait_procs(children, timeout=3)[1]:
        child.kill()


if __name__ == "__main__":
    main()
