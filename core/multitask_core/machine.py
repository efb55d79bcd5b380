"""What a run or a result was made on: hardware, system, versions, commit; nothing names a place."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

# Results are written one after the other: they do not change the code that made the next one.
_CODE = (":(top)", ":(top,exclude)benchmarks/results")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")


def describe(packages: Iterable[str], checkout: Path) -> dict[str, Any]:
    """The machine that runs this process, JSON-ready.

    packages: distributions whose versions matter; checkout: a folder whose git commit is named.
    """
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
        "packages": package_versions(packages),
        "git": git_state(checkout),
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
    """Names of NVIDIA GPUs with their driver, as nvidia-smi gives them; empty without one.

    Where that program is missing, torch is asked, if this process has loaded it anyway.
    """
    query = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
    return (_output("nvidia-smi", *query) or "").splitlines() or _torch_gpus()


def system_name() -> str:
    """Distribution and C library."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, {' '.join(platform.libc_ver())}".rstrip(", ")


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files other than results differ from it; None outside a checkout."""
    git = ("git", "-C", str(folder))
    commit = _output(*git, "rev-parse", "HEAD")
    changes = _output(*git, "status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return {"commit": commit, "dirty": bool(changes)} if commit else None


def _torch_gpus() -> list[str]:
    # Core never imports torch: a server or a client would carry it for one name.
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


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
