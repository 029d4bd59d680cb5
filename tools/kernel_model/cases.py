"""Ops and their launches, as tests/kernels/record_launches.py records them."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.gpu import roofline
from tools import kernel_report


@dataclass(frozen=True)
class Launch:
    """One launch."""

    kernel: str
    blocks: int
    threads: int
    shared: int  # bytes, dynamic

    @property
    def warps(self) -> int:
        """Of a block."""
        return -(-self.threads // 32)

    @property
    def family(self) -> str:
        """The kernel's name without its template arguments."""
        return self.kernel.partition("<")[0]


@dataclass(frozen=True)
class Case:
    """An op on the features of a layer."""

    op: str
    side: int
    layer: str
    precision: str
    layout: str
    channels: int
    positions: int
    multiprocessors: int
    launches: tuple[Launch, ...]
    buffers: dict[str, int] = field(default_factory=dict)  # values of each, by name
    plan: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of a value of the features."""
        return roofline.SIZE_OF[self.precision]

    @property
    def features(self) -> float:
        """Bytes of the features."""
        return float(self.channels * self.positions * self.size)

    @property
    def terms(self) -> int:
        """Products on tensor cores for one product."""
        return 3 if self.precision == "float32" else 1


@functools.cache
def readable(kernel: str) -> str:
    """The name of a kernel as in the facts, from the symbol that a launch has."""
    return kernel_report.demangled([kernel])[0] if kernel.startswith("_Z") else kernel_report.short(kernel)


def case_of(entry: dict[str, Any]) -> Case:
    """A recorded entry."""
    launches = []
    for launch in entry["launches"]:
        x, y, z = launch["grid"]
        launches.append(Launch(readable(launch["kernel"]), x * y * z, launch["threads"], launch["shared"]))
    return Case(**{**entry, "launches": tuple(launches)})


def entry_of(case: Case) -> dict[str, Any]:
    """What `case_of` takes."""
    launches = [
        {"kernel": launch.kernel, "grid": [launch.blocks, 1, 1], "threads": launch.threads, "shared": launch.shared}
        for launch in case.launches
    ]
    return {**asdict(case), "launches": launches}
