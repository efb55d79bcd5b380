"""What a result was measured on: hardware, system, versions, commit; nothing that names a place."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
_PACKAGES = (
    "grpcio", "multitask-transformer", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino",
    "tokenizers", "torch", "transformers", "tritonclient",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """The machine that runs this process, JSON-ready."""
    cpu = Path("/proc/cpuinfo")
    text = cpu.read_text("utf-8") if cpu.is_file() else ""
    return {
        "cpu": cpu_model(text),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_flags": cpu_flags(text),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus(),
        "system": system_name(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "git": git_state(Path(__file__).parent),
    }


def cpu_model(cpuinfo: str) -> str:
    """The processor's marketing name from the text of /proc/cpuinfo, else its architecture."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def cpu_flags(cpuinfo: str) -> list[str]:
    """Those instruction sets that decide how fast matrices multiply."""
    found = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = set(found[1].split()) if found else set()
    return [flag for flag in _FLAGS if flag in present]


def gpus() -> list[str]:
    """Names of NVIDIA GPUs with their driver, as nvidia-smi gives them; empty without one."""
    query = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
    return (_output("nvidia-smi", *query) or "").splitlines()


def system_name() -> str:
    """Distribution and C library."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, {' '.join(platform.libc_ver())}".rstrip(", ")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide the result."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout."""
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)} if commit else None


def hardware_slug(machine: dict[str, Any]) -> str:
    """The name of the hardware as a file name: `nvidia-l4`, `amd-epyc-9b14-2cpu`."""
    if machine["gpus"]:
        name = machine["gpus"][0].partition(",")[0]
    else:
        name = re.sub(r"\((?:R|TM)\)|\bCPU\b|@.*", "", machine["cpu"], flags=re.IGNORECASE)
        name += f" {machine['cpus']}cpu"
    return slug(name)


def slug(name: str) -> str:
    """Lower-case letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _output(program: str, *arguments: str) -> str | None:
    """What a program prints, or None where it is missing, fails or hangs."""
    path = shutil.which(program)
    if not path:
        return None
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
