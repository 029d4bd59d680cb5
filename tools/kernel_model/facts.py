"""What the model takes from the machine code of a kernel: its loops, and what is outside them.

Times are those of one warp alone, in cycles, for each latency of global memory in `LATENCIES`; between these the model
interpolates. Where branches leave several ways, `path` says which is counted.
"""

from __future__ import annotations

import bisect
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tools import kernel_report, sass
from tools.kernel_model import scoreboard

LATENCIES = (0, 250, 500, 1000, 2000)
Blocks = list[list[sass.Instruction]]  # basic blocks


def at_latency(chain: list[float], latency: float) -> float:
    """Cycles at a latency, between those simulated."""
    high = min(max(bisect.bisect_left(LATENCIES, latency), 1), len(LATENCIES) - 1)
    low = high - 1
    part = (latency - LATENCIES[low]) / (LATENCIES[high] - LATENCIES[low])
    return chain[low] + part * (chain[high] - chain[low])


@dataclass
class Loop:
    """A loop without the loops inside it. Counts are for a thread and an iteration."""

    number: int  # of the loop; the ways through one loop, of which a warp takes one, have the same
    parent: int  # the number of the loop around it; -1 for none
    inner: bool  # whether it contains no other
    tail: bool  # whether it comes after the first atomic, where only the last block arrives
    instructions: int = 0
    tensor: dict[str, int] = field(default_factory=dict)  # by opcode
    loads: dict[str, int] = field(default_factory=dict)  # LDG by width in bits
    copies: dict[str, int] = field(default_factory=dict)  # LDGSTS, the copies to shared memory
    stores: dict[str, int] = field(default_factory=dict)
    wavefronts: int = 0  # of shared memory for a warp, without bank conflicts
    in_flight: int = 0  # bytes at once
    independent: int = 0  # loads at once
    chain: list[float] = field(default_factory=list)

    @property
    def products(self) -> int:
        """Tensor-core instructions."""
        return sum(self.tensor.values())

    def bytes(self, *kinds: str) -> int:
        """Bytes loaded, copied or stored."""
        return sum(int(w) // 8 * n for kind in kinds for w, n in getattr(self, kind).items())


@dataclass
class Kernel:
    """A kernel on one architecture."""

    name: str
    architecture: int
    registers: int
    shared: int  # bytes, static
    threads: int  # of its launch bounds
    loops: list[Loop] = field(default_factory=list)
    straight: int = 0  # instructions outside loops
    before: list[float] = field(default_factory=list)  # cycles of that path up to the first atomic
    after: list[float] = field(default_factory=list)


def name_of(instruction: sass.Instruction) -> str:
    """The opcode without its modifiers."""
    return instruction.opcode.split(".")[0]


def _wavefronts(body: Iterable[sass.Instruction]) -> int:
    total = 0
    for i in body:
        if name_of(i) in ("LDS", "STS", "LDGSTS"):
            total += max(sass.width(i.opcode) // 32, 1)
        elif name_of(i) == "LDSM":
            total += int(next((part for part in i.opcode.split(".") if part in ("2", "4")), "1"))
    return total


def ways(parts: Blocks, following: list[list[int]], own: set[int], loop: set[int]) -> list[list[sass.Instruction]]:
    """Bodies of a loop: one for each of its branches that has tensor-core instructions of its own."""
    last = {block for block in loop if min(loop) in following[block]}
    copied = any(name_of(i) == "LDGSTS" for block in loop for i in parts[block])
    found: list[list[sass.Instruction]] = []
    closed: set[int] = set()
    while len(found) < 4:
        taken = path(parts, following, own - closed, loop - closed, last - closed, copied)
        body = [i for block in taken for i in parts[block]]
        if found and not any(i.tensor for i in body):
            break
        found.append(usual(body))
        arms = {block for block in taken if any(i.tensor for i in parts[block])}
        if not arms or min(loop) in arms:
            break
        closed |= arms
    return found


def _loop(body: list[sass.Instruction], number: int, parent: int, inner: bool, tail: bool) -> Loop:
    def widths(*opcodes: str) -> dict[str, int]:
        return {str(width): n for width, n in sorted(sass.load_widths(body, opcodes).items())}

    chain = [round(scoreboard.steady(body, latency)[0], 1) for latency in LATENCIES]
    _, warp = scoreboard.steady(body, LATENCIES[-1])
    tensor = Counter(i.opcode for i in body if i.tensor)
    return Loop(
        number,
        parent,
        inner,
        tail,
        len(body),
        dict(tensor),
        widths("LDG"),
        widths("LDGSTS"),
        widths("STG", "ST"),
        _wavefronts(body),
        warp.most_bytes,
        warp.most_loads,
        chain,
    )


def _needed(body: list[sass.Instruction], copied: bool) -> tuple[int, int]:
    """Instructions that the usual case executes: wide loads, stores, shared memory and products; and copies.

    Narrow loads are those of optional terms (a weight, a shift) and of remainders. Where features are ``copied`` to
    shared memory, wide loads are optional too (a target).
    """
    # The compiler puts `LDS RZ, [RZ]` before copies; it loads nothing.
    names = Counter(name_of(i) for i in body if not i.operands.startswith("RZ, "))
    wide = 0 if copied else sum(name_of(i) == "LDG" and sass.width(i.opcode) >= 64 for i in body)
    others = sum(bool(i.tensor) for i in body) + sum(names[n] for n in ("STG", "BAR", "LDS", "STS", "LDSM"))
    return wide + others, names["LDGSTS"]


def usual(body: list[sass.Instruction], most: int = 32) -> list[sass.Instruction]:
    """The body with predicated loads of optional terms switched off: up to ``most`` bits, beside wide ones."""
    if most < 128 and not any(name_of(i) in ("LDG", "LDGSTS") and sass.width(i.opcode) == 128 for i in body):
        return body
    off = {id(i) for i in body if i.predicated and name_of(i) == "LDG" and sass.width(i.opcode) <= most}
    return [replace(i, opcode="NOP", operands="", control=i.control | 7 << 5) if id(i) in off else i for i in body]


def path(
    parts: list[list[sass.Instruction]],
    following: list[list[int]],
    counted: set[int],
    allowed: set[int],
    last: set[int],
    copied: bool,
) -> list[int]:
    """The counted blocks on the way from the first allowed block to one of ``last`` that is taken.

    Of all ways, the one with the most of what `_needed` counts and, of these, the one with the fewest instructions.
    Ways to copy are alternatives, and the one with the most copies is not the usual one: they count at most four times.
    Branches to lower addresses, which are those of loops, are not followed.
    """
    best: dict[int, tuple[int, int, int, list[int]]] = {}  # needed, copies, minus the instructions, blocks
    for block in sorted(allowed, reverse=True):
        onward = [best[to] for to in following[block] if to > block and to in best]
        if block in last:
            onward.append((0, 0, 0, []))
        if onward:
            needed, copies, fewer, way = max(onward, key=lambda item: (item[0] + min(item[1], 4), item[2]))
            if block in counted:
                more, copied_here = _needed(parts[block], copied)
                needed, copies = needed + more, copies + copied_here
                fewer, way = fewer - len(parts[block]), [block, *way]
            best[block] = (needed, copies, fewer, way)
    return best[min(allowed)][3] if allowed and min(allowed) in best else []


def kernel_of(name: str, architecture: int, instructions: list[sass.Instruction]) -> Kernel:
    """Facts of the code alone; registers, memory and threads are left at zero."""
    parts, following = sass.blocks(instructions)
    found = sorted(sass.loops(following), key=lambda loop: (min(loop), -len(loop)))
    arrival = min((i.address for i in instructions if i.opcode.startswith("ATOM")), default=instructions[-1].address)
    kernel = Kernel(name, architecture, 0, 0, 0)
    for number, loop in enumerate(found):
        own = loop.difference(*(other for other in found if other < loop))
        parents = [n for n, other in enumerate(found) if loop < other]
        parent = min(parents, key=lambda n: len(found[n]), default=-1)
        inner = not any(other < loop for other in found)
        tail = parts[min(loop)][0].address > arrival
        kernel.loops += [_loop(body, number, parent, inner, tail) for body in ways(parts, following, own, loop)]
    every = set(range(len(parts)))
    ends = {block for block in every if not following[block]}
    # Where features are copied to shared memory, what is loaded outside the loops is optional, such as a target.
    copied = any(name_of(i) == "LDGSTS" for i in instructions)
    taken = path(parts, following, every.difference(*found), every, ends, copied)
    straight = usual([i for block in taken for i in parts[block]], 128 if copied else 32)
    kernel.straight = len(straight)
    for times, early in ((kernel.before, True), (kernel.after, False)):
        part = [i for i in straight if (i.address <= arrival) == early]
        times += [round(scoreboard.Warp(latency).run(part), 1) for latency in LATENCIES]
    return kernel


def from_binary(binary: Path, architectures: Iterable[int], pattern: str = "") -> list[Kernel]:
    """Facts of the kernels whose name starts with one of the words of ``pattern``; all without one."""
    usage = kernel_report.parse_usage(kernel_report.cuobjdump("-res-usage", binary))
    mangled = sorted({name for _, name in usage})
    names = dict(zip(mangled, kernel_report.demangled(mangled), strict=True))
    if {architecture for architecture, _ in usage} == {0}:  # a cubin, of one architecture
        only = re.search(r"code for sm_(\d+)", kernel_report.cuobjdump("-sass", binary))
        usage = {(int(only[1]) if only else 0, name): used for (_, name), used in usage.items()}
    kernels = []
    for architecture in architectures:
        if architecture not in {a for a, _ in usage}:
            continue
        threads = kernel_report.parse_threads(kernel_report.cuobjdump("-elf", "-arch", f"sm_{architecture}", binary))
        code = sass.parse(kernel_report.cuobjdump("-sass", "-arch", f"sm_{architecture}", binary))
        for name, instructions in code.items():
            if not names[name].startswith(tuple(pattern.split()) or ""):
                continue
            used = usage[architecture, name]
            kernel = kernel_of(names[name], architecture, instructions)
            kernel.registers = used["REG"]
            kernel.shared = kernel_report.own_shared(architecture, used["SHARED"])
            kernel.threads = threads.get(name, 0)
            kernels.append(kernel)
    return kernels


def to_json(kernels: list[Kernel]) -> str:
    """One kernel a line."""
    return "[\n" + ",\n".join(json.dumps(asdict(k), separators=(",", ":")) for k in kernels) + "\n]\n"


def from_json(text: str) -> list[Kernel]:
    """What `to_json` wrote."""
    return [Kernel(**{**item, "loops": [Loop(**loop) for loop in item["loops"]]}) for item in json.loads(text)]
