"""Runs a PTX kernel: all threads of a block in step, with NumPy; the blocks one after the other.

Of the threads that are not waiting, those at the lowest instruction run, so that threads that took different branches
meet again. Instructions for whole warps wait for all their lanes; an instruction that is not known is an error that
names it.

    x = Region("x", 1 << 32, np.zeros(4096, np.uint8), granule=4)
    launch(kernel, [x], range(2), grid=2, threads=64, arguments=[struct.pack("Q", x.base)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .instructions import EFFECTS, Instructions
from .memory import BlockOrder, Memory, Region, Violation
from .operations import OPERATIONS
from .parse import SIZE, Instruction, Kernel, Register
from .state import Unknown

EXITED = np.iinfo(np.int64).max


def for_whole_warps(ins: Instruction) -> bool:
    return ins.parts[0] in ("shfl", "mma", "vote", "match", "redux") or ins.name.startswith("bar.warp")


class Block(Instructions):
    """The control flow of one block."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.at = np.zeros(self.count, np.int64)  # the next instruction of each thread
        self.waiting = np.zeros(self.count, bool)  # at a barrier
        self.current = 0

    def run(self) -> None:
        """Until every thread has exited."""
        while (self.at != EXITED).any():
            self._choose()
            self._straight()

    def _choose(self) -> None:
        """Select the threads that run next."""
        ready = (self.at != EXITED) & ~self.waiting
        if not ready.any():
            self._barrier()
            ready = self.at != EXITED
        for at in np.unique(self.at[ready]) if not (self.at == self.at[0]).all() else self.at[:1]:
            here = ready & (self.at == at)
            if for_whole_warps(self.kernel.instructions[at]):
                here = np.repeat(here.reshape(-1, 32).all(axis=1), 32)
            if here.any():
                self.select(here)
                self.begin = int(at)
                return
        raise Violation(f"divergent warp collective: {self.kernel.instructions[self.at[ready].min()]}")

    def _barrier(self) -> None:
        exited = self.at == EXITED
        if exited.any():
            raise Violation(f"divergent barrier: {exited.sum()} threads have left, {self.waiting.sum()} wait")
        if (self.at != self.at[0]).any():
            raise Violation("divergent barrier: threads wait at different ones")
        self.memory.order.at_barrier()
        self.waiting[:] = False

    def _straight(self) -> None:
        """Run the selected threads up to the next branch, label, barrier, or warp that is not whole."""
        instructions, at = self.kernel.instructions, self.begin
        targets = self.kernel.targets
        while True:
            ins, self.current = instructions[at], at
            self.memory.order.clock += 1
            first = ins.parts[0]
            if first == "bra":
                self._branch(ins, at)
                return
            if first in ("ret", "exit"):
                self._leave(ins, at)
                return
            if ins.name.startswith(("bar.sync", "barrier.sync")):
                self._arrive(ins, at)
                return
            if for_whole_warps(ins) and not self.whole:
                self.at[self.lanes] = at
                return
            if ins.name == "bar.warp.sync":
                self.memory.order.at_warp_barrier(np.unique(self.threads // 32))
            else:
                self._execute(ins)
            at += 1
            if at in targets:
                self.at[self.lanes] = at
                return

    def _execute(self, ins: Instruction) -> None:
        first = ins.parts[0]
        act: Callable[[Instruction], None] | None = getattr(self, first, None) if first in EFFECTS else None
        if act is None:
            if first not in OPERATIONS:
                raise Unknown(ins.name)
            act = self.simple
        if ins.guard is None:
            act(ins)
            return
        lanes, threads, whole = self.lanes, self.threads, self.whole
        which = np.zeros(self.count, bool)
        which[lanes] = self.read(Register(ins.guard), "pred") != ins.negated
        if which.any():
            self.select(which)
            act(ins)
        self.lanes, self.threads, self.whole = lanes, threads, whole

    def _taken(self, ins: Instruction) -> np.ndarray:
        if ins.guard is None:
            return np.ones(len(self.threads), bool)
        return self.read(Register(ins.guard), "pred") != ins.negated

    def _branch(self, ins: Instruction, at: int) -> None:
        target = self.kernel.labels[ins.operands[0].name]  # type: ignore[union-attr]
        self.at[self.lanes] = np.where(self._taken(ins), target, at + 1)

    def _leave(self, ins: Instruction, at: int) -> None:
        self.at[self.lanes] = np.where(self._taken(ins), EXITED, at + 1)

    def _arrive(self, ins: Instruction, at: int) -> None:
        if [getattr(operand, "text", None) for operand in ins.operands] != ["0"] or ins.guard:
            raise Unknown(str(ins))
        self.at[self.lanes] = at + 1
        self.waiting[self.lanes] = True


def launch(
    kernel: Kernel,
    buffers: list[Region],
    order: Iterable[int],
    grid: int,
    threads: int,
    arguments: list[bytes],
    dynamic: int = 0,
) -> dict[str, int]:
    """Run the blocks in `order`; the number of mma instructions by shape.

    `arguments` are the bytes of each parameter, `dynamic` is the size of dynamic shared memory.
    """
    memory, counts = Memory(buffers), {}
    parameters, starts = b"", {}
    for declared, given in zip(kernel.parameters, arguments, strict=True):
        assert declared.bytes == len(given), f"{declared.name} has {declared.bytes} bytes, not {len(given)}"
        parameters += bytes(-len(parameters) % declared.align)
        starts[declared.name] = len(parameters)
        parameters += given
    variables, size, granule = place_shared(kernel, dynamic)
    clock = 0
    with np.errstate(all="ignore"):
        for number in order:
            memory.shared = Region("shared memory", 0, np.full(-(-size // 16) * 16, 0xCD, np.uint8), granule, size)
            memory.order = BlockOrder(number, clock, clock)
            how = {"parameters": parameters, "starts": starts, "threads": threads, "block": number, "grid": grid}
            block = Block(kernel, memory, variables, how)
            try:
                block.run()
            except (Violation, Unknown) as error:
                where = kernel.instructions[block.current]
                raise type(error)(f"{kernel.name}, block {number}: {error}: {where}") from None
            clock = memory.order.clock + 1
            for name, count in block.counts.items():
                counts[name] = counts.get(name, 0) + count
    return counts


def place_shared(kernel: Kernel, dynamic: int) -> tuple[dict[str, int], int, int]:
    """Offsets of the variables in shared memory, its size, and the least width of an access."""
    offsets, end = {}, 0
    for variable in sorted(kernel.shared, key=lambda v: v.bytes == 0):
        end += -end % max(variable.align, 16 if variable.bytes == 0 else 1)
        offsets[variable.name] = end
        end += variable.bytes or dynamic
    accesses = [ins for ins in kernel.instructions if ins.parts[0] in ("ld", "st") and "shared" in ins.parts]
    return offsets, end, min([4, *(SIZE[ins.parts[-1]] for ins in accesses)])
