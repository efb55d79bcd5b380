"""Peak memory of this process between two moments."""

from __future__ import annotations

import re
import resource
from pathlib import Path

_PROC = Path("/proc/self")
_KIB_IN_MIB = 1024


def forget_peak() -> None:
    """Start anew from what is held now, where the system can: Linux, proc(5), `clear_refs`."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:  # then the peak is that since the process started
        return


def peak_mib() -> float:
    """The largest resident set since `forget_peak`, in MiB."""
    try:
        status = (_PROC / "status").read_text()
    except OSError:
        status = ""
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    kib = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / _KIB_IN_MIB
