"""How far a run raises the peak of the resident memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    sys.exit(f"/proc/self/status has no {field}")


def growth(run: Callable[[], object]) -> int:
    """By how many bytes ``run`` raises the peak of the resident memory above its present level."""
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process still holds would not count as growth
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current level
    before = status("VmRSS")
    run()
    return status("VmHWM") - before
