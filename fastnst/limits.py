"""What this process may use of the machine: the CPUs and the memory of its affinity and its control groups.

Containers and services limit processes through control groups of Linux, version 1 or 2. A group is limited by its
ancestors too, so the least limit counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
UNLIMITED = 2**62  # version 1 writes the largest multiple of a page that fits into 63 bits


def cpus() -> int:
    """The number of CPUs that this process may keep busy: those of its affinity, at most its quota, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return allowed if quota is None else max(min(allowed, math.ceil(quota)), 1)


def cpu_quota() -> float | None:
    """The CPU time that the control groups allow, in CPUs; None without a limit."""
    quotas = []
    for group in _groups("cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (group / "cpu.max").exists():
                quota, _, period = (group / "cpu.max").read_text().partition(" ")
            else:
                quota, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_left() -> int | None:
    """Bytes that the control groups leave; None without a limit."""
    left = []
    for group in _groups("memory"):
        with suppress(OSError, ValueError):
            second = (group / "memory.max").exists()
            names = ("max", "current") if second else ("limit_in_bytes", "usage_in_bytes")
            limit, used = (_text(group / f"memory.{name}") for name in names)
            if limit == "max" or int(limit) >= UNLIMITED:
                continue
            counts = dict(line.split() for line in _text(group / "memory.stat").splitlines())
            # Inactive pages of files count as used, but the kernel frees them on demand.
            freed = int(counts.get("inactive_file" if second else "total_inactive_file", 0))
            left.append(int(limit) - int(used) + freed)
    return min(left, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's group and of its ancestors, for the version that has the controller."""
    for line in _memberships():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [MOUNT, MOUNT / "unified"]
        elif controller in controllers.split(","):
            mounts = [MOUNT / controllers, MOUNT / controller]
        else:
            continue
        for mount in mounts:
            # In a container the path may be that on the machine, which is not there: the mount is then the group.
            names = [part for part in path.split("/") if part not in ("", "..")]
            for length in range(len(names), -1, -1):
                group = mount.joinpath(*names[:length])
                if group.is_dir():
                    yield group


def _memberships() -> list[str]:
    try:
        return MEMBERSHIP.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _text(path: Path) -> str:
    return path.read_text().strip()
