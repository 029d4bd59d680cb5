"""Machine code as `cuobjdump -sass` prints it: instructions, loops, loads.

Used by kernel_report.py and by kernel_model, which also reads the control bits of each instruction.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

TENSOR = re.compile(r"(H|I|D|B|Q|O|HG|IG|QG|UTCH|UTCQ|UTCO)MMA\b")
LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
# The upper half of the encoding is in a line of its own after the instruction.
UPPER = re.compile(r"\s*/\* 0x([0-9a-f]{16}) \*/\s*$")


@dataclass(frozen=True)
class Instruction:
    address: int
    predicated: bool
    opcode: str
    operands: str
    control: int = 0
    """Control bits, from the lowest: stall (4), yield (1), write barrier (3), read barrier (3), awaited barriers (6).

    These are bits 105 to 121 of the encoding: Jia et al. 2018, "Dissecting the NVIDIA Volta GPU Architecture via
    Microbenchmarking", section 2.1. Zero if the text has no encodings.
    """

    @property
    def stall(self) -> int:
        """Cycles before the warp issues its next instruction."""
        return max(self.control & 15, 1)

    @property
    def write_barrier(self) -> int:
        """The barrier, 0 to 5, that is released when the result is written; 7 for none."""
        return self.control >> 5 & 7

    @property
    def read_barrier(self) -> int:
        """The barrier that is released when the operands are read; 7 for none."""
        return self.control >> 8 & 7

    @property
    def waits_for(self) -> list[int]:
        """The barriers that must be released before this instruction issues."""
        return [barrier for barrier in range(6) if self.control >> 11 + barrier & 1]

    @property
    def tensor(self) -> bool:
        """Whether tensor cores execute it; HFMA2.MMA, a plain addition in another pipe, is not."""
        return TENSOR.match(self.opcode) is not None

    @property
    def target(self) -> int | None:
        """The address that a branch or a call goes to; None for other instructions and returns."""
        # Before sm_90 the compiler also leaves loops by a call that does not return.
        if not self.opcode.startswith(("BRA", "CALL.REL")):
            return None
        match = re.search(r"0x([0-9a-f]+)\s*$", self.operands.strip())
        return int(match[1], 16) if match else None

    @property
    def falls_through(self) -> bool:
        if self.opcode in ("BRA", "BRA.U"):
            return self.predicated or "," in self.operands  # BRA.U UP0, 0x80
        return self.predicated or not self.opcode.startswith(("EXIT", "RET", "BRX", "JMX"))


def parse(text: str) -> dict[str, list[Instruction]]:
    """Instructions of each function, by mangled name."""
    functions: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if "Function :" in line:
            current = functions.setdefault(line.split()[-1], [])
        elif match := LINE.match(line):
            address, predicate, opcode, operands = match.groups()
            current.append(Instruction(int(address, 16), predicate is not None, opcode, operands))
        elif current and (match := UPPER.match(line)):
            current[-1] = replace(current[-1], control=int(match[1], 16) >> 41 & 0x1FFFF)
    return functions


def width(opcode: str) -> int:
    """The bits that a load or store moves for each thread."""
    sizes = {"256": 256, "128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}
    return next((sizes[part] for part in opcode.split(".") if part in sizes), 32)


def load_widths(instructions: list[Instruction], opcodes: tuple[str, ...] = ("LDG", "LDGSTS")) -> dict[int, int]:
    """The number of loads from global memory by width in bits, including copies to shared memory."""
    return dict(Counter(width(i.opcode) for i in instructions if i.opcode.split(".")[0] in opcodes))


def blocks(instructions: list[Instruction]) -> tuple[list[list[Instruction]], list[list[int]]]:
    """Basic blocks, and for each the indices of the blocks that may follow."""
    index = {instruction.address: i for i, instruction in enumerate(instructions)}
    starts = {0}
    for i, instruction in enumerate(instructions):
        if instruction.target in index:
            starts.add(index[instruction.target])
        if (instruction.target is not None or not instruction.falls_through) and i + 1 < len(instructions):
            starts.add(i + 1)
    order = sorted(starts)
    number = {start: n for n, start in enumerate(order)}
    parts, following = [], []
    for n, start in enumerate(order):
        end = order[n + 1] if n + 1 < len(order) else len(instructions)
        part, last = instructions[start:end], instructions[end - 1]
        to = [number[index[last.target]]] if last.target in index else []
        if last.falls_through and n + 1 < len(order):
            to.append(n + 1)
        parts.append(part)
        following.append(to)
    return parts, following


def loops(following: list[list[int]]) -> list[set[int]]:
    """Natural loops: the blocks between a backward branch and its target, which dominates the branch."""
    count = len(following)
    before: list[list[int]] = [[] for _ in range(count)]
    reachable, stack = {0}, [0]
    while stack:
        for to in following[stack.pop()]:
            if to not in reachable:
                reachable.add(to)
                stack.append(to)
    for block in reachable:
        for to in following[block]:
            before[to].append(block)
    everything = frozenset(reachable)
    dominators = dict.fromkeys(reachable, everything) | {0: frozenset({0})}
    changed = True
    while changed:
        changed = False
        for block in sorted(reachable - {0}):
            common = frozenset.intersection(*(dominators[b] for b in before[block])) | {block}
            if common != dominators[block]:
                dominators[block], changed = common, True
    found: dict[int, set[int]] = {}
    for block in reachable:
        for head in following[block]:
            if head in dominators[block]:
                body, stack = found.setdefault(head, {head}), [block]
                while stack:
                    inside = stack.pop()
                    if inside not in body:
                        body.add(inside)
                        stack += before[inside]
    return list(found.values())


def main_loop(instructions: list[Instruction]) -> list[Instruction]:
    """The innermost loop with the most tensor-core instructions or, without any, with the most bits loaded.

    Loops after an atomic are skipped if there are others: in them the last thread block sums all partial results.
    """
    if not instructions:
        return []
    parts, following = blocks(instructions)
    every = [(loop, [i for block in sorted(loop) for i in parts[block]]) for loop in loops(following)]
    arrival = min((i.address for i in instructions if i.opcode.startswith("ATOM")), default=instructions[-1].address)
    early = [(loop, body) for loop, body in every if body[0].address < arrival]

    def tensor(body: list[Instruction]) -> int:
        return sum(i.tensor for i in body)

    def loads(body: list[Instruction]) -> int:
        return sum(width * count for width, count in load_widths(body).items())

    for candidates, weight in ((every, tensor), (early, loads), (every, loads)):
        working = [(loop, body) for loop, body in candidates if weight(body)]
        innermost = [body for loop, body in working if not any(other < loop for other, _ in working)]
        if innermost:
            return max(innermost, key=lambda body: (weight(body), -len(body)))
    return []
