"""One warp issuing instructions in order, as the control bits of its machine code say.

An instruction issues after the stall of the one before it and after the barriers it awaits. Loads release their
barrier after a given latency; what else has a variable latency (shared memory, shuffles, special functions) takes the
cycles of `LATENCY`. Other warps, bank conflicts and busy pipes are not considered here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tools import sass

# Cycles on A100, H100 and RTX 4090 alike, within 10 %: Luo et al. 2024, "Benchmarking and Dissecting the Nvidia Hopper
# GPU Architecture", for shared memory; the others rounded from Jia et al. 2018.
LATENCY = {"LDS": 30, "LDSM": 33, "SHFL": 24, "BAR": 30, "MEMBAR": 500, "S2R": 20}
OTHER = 20
FROM_GLOBAL = ("LDG", "LD", "ATOMG", "ATOM")


@dataclass
class Warp:
    """State of the simulation. ``latency`` is that of global memory, in cycles."""

    latency: float
    now: float = 0.0
    ready: list[float] = field(default_factory=lambda: [0.0] * 6)
    pending: list[tuple[float, int]] = field(default_factory=list)  # copies since the last group: (arrival, bytes)
    groups: list[tuple[float, int]] = field(default_factory=list)  # of copies, not yet awaited
    loads: list[tuple[int, int]] = field(default_factory=list)  # not yet awaited: (barrier, bytes)
    most_bytes: int = 0  # of a thread in flight at once
    most_loads: int = 0

    def run(self, instructions: list[sass.Instruction]) -> float:
        """Issue all; the time after the last."""
        for instruction in instructions:
            self._issue(instruction)
        return self.now

    def _issue(self, i: sass.Instruction) -> None:
        for barrier in i.waits_for:
            self.now = max(self.now, self.ready[barrier])
            self.loads = [load for load in self.loads if load[0] != barrier]
        name = i.opcode.split(".")[0]
        if name == "DEPBAR" and (match := re.search(r"SB(\d), 0x([0-9a-f]+)", i.operands)):
            awaited = self.groups[: max(len(self.groups) - int(match[2], 16), 0)]
            self.now = max([self.now, *(arrival for arrival, _ in awaited)])
            self.groups = self.groups[len(awaited) :]
        elif name == "LDGSTS":
            self.pending.append((self.now + self.latency, sass.width(i.opcode) // 8))
        elif name == "LDGDEPBAR":
            if self.pending:
                self.groups.append((max(a for a, _ in self.pending), sum(b for _, b in self.pending)))
            self.pending = []
        if i.write_barrier < 6:
            takes = self.latency if name in FROM_GLOBAL else LATENCY.get(name, OTHER)
            self.ready[i.write_barrier] = max(self.ready[i.write_barrier], self.now + takes)
            if name == "LDG":
                self.loads.append((i.write_barrier, sass.width(i.opcode) // 8))
        if i.read_barrier < 6:
            self.ready[i.read_barrier] = max(self.ready[i.read_barrier], self.now + OTHER)
        in_flight = [b for _, b in (*self.loads, *self.pending, *self.groups)]
        self.most_bytes = max(self.most_bytes, sum(in_flight))
        self.most_loads = max(self.most_loads, len(self.loads) + len(self.pending))
        self.now += i.stall


def steady(body: list[sass.Instruction], latency: float, settle: int = 6, measured: int = 4) -> tuple[float, Warp]:
    """Cycles of one more iteration of a loop that has run for a while, and the warp after it."""
    warp = Warp(latency)
    for _ in range(settle):
        start = warp.run(body)
    for _ in range(measured):
        end = warp.run(body)
    return (end - start) / measured, warp
