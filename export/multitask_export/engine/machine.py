"""Which trtexec there is, which TensorRT it belongs to, and which GPU it will run on."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from multitask_core.errors import ConfigError

# Where NVIDIA's containers keep it; it is not on their PATH.
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"

INSIDE_THE_CONTAINER = (
    "run this inside the Triton container, on the GPU that will serve: `make engine "
    "ARTIFACT=artifacts/NAME REPOSITORY=triton_models`, or docker build -f Dockerfile.triton "
    "--target engine -t multitask-engine . && docker run --rm --gpus device=0 "
    '--user "$(id -u):$(id -g)" -v "$PWD/artifacts/NAME:/artifact:ro" '
    '-v "$PWD/triton_models:/models" multitask-engine --artifact /artifact --repository /models'
)

_TIMEOUT_S = 120
# `&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec --help`; before 10 it is v8601.
_BANNER = re.compile(r"\[TensorRT v([\d.]+)\]")


class TensorRTVersion(NamedTuple):
    """TensorRT's own version number, not that of a container."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


class Gpu(NamedTuple):
    """name: NVIDIA's product name; capability: compute capability, such as 9.0."""

    name: str
    capability: str

    @property
    def plan_name(self) -> str:
        """The plan's file name, such as model_sm90.plan."""
        return f"model_sm{self.capability.replace('.', '')}.plan"


def find_trtexec(given: str = "") -> Path:
    """The program that was named, or the one on PATH, or NVIDIA's; raises ConfigError."""
    for candidate in [given] if given else ["trtexec", TRTEXEC]:
        if found := shutil.which(candidate):
            return Path(found)
    looked = given or f"trtexec on PATH or at {TRTEXEC}"
    raise ConfigError(f"there is no program {looked}; {INSIDE_THE_CONTAINER}")


def tensorrt_version(trtexec: Path) -> TensorRTVersion:
    """Read the version from trtexec's banner; raises ConfigError for none and for one before 10.

    Networks with INT64 inputs and strong typing need TensorRT 10.
    """
    output = _output([str(trtexec), "--help"])
    match = _BANNER.search(output)
    if match is None:
        first = next(iter(output.splitlines()), "nothing")
        raise ConfigError(f"{trtexec} is no trtexec: it prints {first!r}")
    version = _version(match[1])
    if version.major < 10:
        raise ConfigError(f"{trtexec} is of TensorRT {version}; 10.0 or later is needed")
    return version


def find_gpu() -> Gpu:
    """Ask nvidia-smi for the one kind of GPU that is visible; raises ConfigError."""
    program = shutil.which("nvidia-smi")
    if program is None:
        raise ConfigError(f"there is no nvidia-smi, so no NVIDIA GPU; {INSIDE_THE_CONTAINER}")
    output = _output([program, "--query-gpu=name,compute_cap", "--format=csv,noheader"])
    kinds = sorted({line.strip() for line in output.splitlines() if line.strip()})
    if len(kinds) > 1:
        raise ConfigError(
            f"several kinds of GPU are visible: {'; '.join(kinds)}. A plan belongs to one kind; "
            "show the container one with --gpus device=N"
        )
    name, _, capability = (kinds[0] if kinds else "").rpartition(",")
    if not re.fullmatch(r"\d+\.\d+", capability.strip()):
        raise ConfigError(f"nvidia-smi names no GPU with a compute capability: {output.strip()!r}")
    return Gpu(name.strip(), capability.strip())


def _version(number: str) -> TensorRTVersion:
    """`101303` → 10.13.3, `8601` → 8.6.1; dotted numbers as they stand."""
    if "." in number:
        parts = [int(part) for part in f"{number}.0.0".split(".")[:3]]
        return TensorRTVersion(*parts)
    value = int(number)
    if value < 10_000:
        return TensorRTVersion(value // 1000, value // 100 % 10, value % 100)
    return TensorRTVersion(value // 10_000, value // 100 % 100, value % 100)


def _output(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]} does not run: {error}") from error
    if result.returncode:
        last = (result.stdout.strip().splitlines() or ["no output"])[-1]
        raise ConfigError(f"{command[0]} fails: {last}; {INSIDE_THE_CONTAINER}")
    return result.stdout
