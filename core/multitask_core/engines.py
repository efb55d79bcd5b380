"""The runtimes that execute a graph: ONNX Runtime and OpenVINO, both on the same ONNX files.

An engine is named in settings and manifests:

    onnxruntime     every device, every precision that the graph itself has
    openvino        CPU, FP32
    openvino-bf16   CPU with BF16 units: matrix products in BF16
    auto            `choose` takes the fastest that passed the artifact's gates and works here
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from multitask_core.errors import ArtifactError, ConfigError

ONNXRUNTIME, OPENVINO, OPENVINO_BF16 = "onnxruntime", "openvino", "openvino-bf16"
AUTO = "auto"
ENGINES = (ONNXRUNTIME, OPENVINO, OPENVINO_BF16)

Feeds = Mapping[str, npt.NDArray[Any]]
_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}

log = logging.getLogger(__name__)


class Session(NamedTuple):
    """An open graph. inputs: names. outputs: name → last dim, -1 where it varies.

    run: feeds → the asked outputs, in their order.
    """

    engine: str
    inputs: frozenset[str]
    outputs: Mapping[str, int]
    run: Callable[[Sequence[str], Feeds], list[npt.NDArray[np.float32]]]


def open_session(path: Path, engine: str, device: str, threads: int) -> Session:
    """Open a graph on one engine; threads 0 takes the CPUs that this process may use.

    Raises ArtifactError for a file that is no graph, ConfigError for an engine or device that is
    unknown or not to be had on this machine.
    """
    if device not in _PROVIDERS:
        raise ConfigError(f"device {device!r} is unknown: use {' or '.join(_PROVIDERS)}")
    if fault := engine_fault(engine, device):
        raise ConfigError(fault)
    if not path.is_file():
        raise ArtifactError(f"there is no graph at {path}")
    threads = threads or available_cpus()
    if engine == ONNXRUNTIME:
        return _open_onnxruntime(path, device, threads)
    return _open_openvino(path, engine, threads)


def choose(gated: Sequence[str], device: str = "cpu") -> str:
    """The engine that `auto` means here: gated holds those with which the graph passed its gates.

    BF16 where the CPU has units for it, which the README's figures favour; else ONNX Runtime, on
    which every graph passed its gates.
    """
    fault = engine_fault(OPENVINO_BF16, device)
    if OPENVINO_BF16 in gated and not fault:
        log.info("engine auto: %s, this CPU has BF16 units", OPENVINO_BF16)
        return OPENVINO_BF16
    reason = fault or "OpenVINO in BF16 did not pass this graph's gates, or was not tried there"
    log.info("engine auto: %s (%s)", ONNXRUNTIME, reason)
    return ONNXRUNTIME


def engine_fault(engine: str, device: str = "cpu") -> str:
    """Why an engine cannot run on this machine; empty where it can."""
    if engine not in ENGINES:
        return f"engine {engine!r} is unknown: use {', '.join(ENGINES)} or {AUTO}"
    if engine == ONNXRUNTIME:
        return ""
    if device != "cpu":
        return f"engine {engine} runs on the CPU; for device {device!r} use {ONNXRUNTIME}"
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed: pip install openvino"
    if engine == OPENVINO_BF16 and "BF16" not in _openvino_capabilities():
        return "this CPU has no BF16 units"
    return ""


def available_cpus() -> int:
    """CPUs that this process may run on, a container's quota apart."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _open_onnxruntime(path: Path, device: str, threads: int) -> Session:
    import onnxruntime  # here, because the client imports core and must not load it

    providers = _PROVIDERS[device]
    if providers[0] not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"this ONNX Runtime has no {providers[0]}: install onnxruntime-gpu, or use device 'cpu'"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the binding raises several unrelated types
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {error}") from error
    if session.get_providers()[0] != providers[0]:  # it falls back without a word
        raise ConfigError(f"ONNX Runtime could not start {providers[0]} on this machine")
    outputs = {node.name: node.shape[-1] for node in session.get_outputs()}
    return Session(
        ONNXRUNTIME,
        frozenset(node.name for node in session.get_inputs()),
        {name: size if isinstance(size, int) else -1 for name, size in outputs.items()},
        lambda names, feeds: session.run(list(names), dict(feeds)),
    )


def _open_openvino(path: Path, engine: str, threads: int) -> Session:
    openvino = _openvino()
    precision = "bf16" if engine == OPENVINO_BF16 else "f32"
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Two instances would pin their threads to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # the binding raises RuntimeError and its own types
        raise ArtifactError(f"OpenVINO cannot load {path}: {error}") from error
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if used != precision:  # it falls back without a word
        raise ConfigError(f"OpenVINO runs {path.name} in {used} here, not in {precision}")
    request = compiled.create_infer_request()
    # As read: compiling folds additions of nothing, and the names of outputs with them.
    places = {name: at for at, port in enumerate(model.outputs) for name in port.names}

    def run(names: Sequence[str], feeds: Feeds) -> list[npt.NDArray[np.float32]]:
        request.infer(dict(feeds), share_inputs=True)
        # Copied: the next run writes into the same memory.
        return [request.get_output_tensor(places[name]).data.copy() for name in names]

    return Session(
        engine,
        frozenset(port.any_name for port in compiled.inputs),
        {name: _last(compiled.outputs[at].partial_shape) for name, at in places.items()},
        run,
    )


def _last(shape: Any) -> int:  # noqa: ANN401  an openvino.PartialShape
    size = shape[len(shape) - 1]
    return int(size.get_length()) if size.is_static else -1


def _openvino() -> Any:  # noqa: ANN401  a module without types
    """Import OpenVINO without its telemetry, which reports every import over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def _openvino_capabilities() -> Sequence[str]:
    found: Sequence[str] = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found
