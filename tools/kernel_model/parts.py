"""What the blocks of a launch do, as passes through the loops of its kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tools.kernel_model.cases import Launch
from tools.kernel_model.facts import Kernel, Loop, at_latency


@dataclass(frozen=True)
class Pass:
    """``trips`` iterations of a loop, each with the passes of ``inner``. Its loads come from memory, L2 or L1."""

    loop: int
    trips: float
    source: str = "memory"
    inner: tuple[Pass, ...] = ()

    def cycles(self, kernel: Kernel, latencies: dict[str, float]) -> float:
        """Of one warp alone.

        Copies to shared memory arrive during what follows them, so a loop with copies waits for them only where its
        inner loops are shorter than their latency.
        """
        chain, inside = kernel.loops[self.loop].chain, sum(p.cycles(kernel, latencies) for p in self.inner)
        waited = at_latency(chain, latencies[self.source])
        one = max(chain[0] + inside, waited) if kernel.loops[self.loop].copies else waited + inside
        return self.trips * one

    def each(self, kernel: Kernel) -> list[tuple[Loop, float]]:
        """Each loop with its iterations."""
        inside = [(loop, self.trips * n) for p in self.inner for loop, n in p.each(kernel)]
        return [(kernel.loops[self.loop], self.trips), *inside]


@dataclass(frozen=True)
class Role:
    """Warps of a block that do the same."""

    warps: float
    passes: tuple[Pass, ...]

    def each(self, kernel: Kernel) -> list[tuple[Loop, float]]:
        """Each loop with the iterations of all warps of a block."""
        return [(loop, n * self.warps) for p in self.passes for loop, n in p.each(kernel)]


@dataclass(frozen=True)
class Kind:
    """Blocks that do the same."""

    blocks: int
    roles: tuple[Role, ...]

    def each(self, kernel: Kernel) -> list[tuple[Loop, float]]:
        """Each loop with the iterations of all warps of a block."""
        return [item for role in self.roles for item in role.each(kernel)]


@dataclass
class Work:
    """A whole launch. ``rounds`` are dependent reads from L2 that the last block does, one after the other."""

    kinds: list[Kind]
    memory: float = 0.0  # bytes to and from memory
    l2: float = 0.0  # bytes between L2 and the multiprocessors
    rounds: int = 0
    tail_loads: int = 0  # loads in flight at once in each round

    def products(self, kernel: Kernel) -> float:
        """Tensor-core instructions of the launch."""
        return sum(kind.blocks * loop.products * n for kind in self.kinds for loop, n in kind.each(kernel))


def cooperative(launch: Launch, kernel: Kernel, bytes_read: float, loops: list[int], source: str = "memory") -> Work:
    """All threads of the launch load ``bytes_read`` together, in each of ``loops`` that loads most."""
    most = max((kernel.loops[n].bytes("loads") for n in loops), default=0)
    passes = []
    for n in loops:
        if kernel.loops[n].bytes("loads") == most:
            each = launch.blocks * launch.threads * most
            passes.append(Pass(n, max(math.ceil(bytes_read / each), 1), source))
    return Work([Kind(launch.blocks, (Role(launch.warps, tuple(passes[:1])),))])
