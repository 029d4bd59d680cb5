"""What each instruction does to registers and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .fragments import multiply
from .memory import Violation
from .operations import OPERATIONS, compare, convert, convert_pair, dtype_of, from_bfloat16, to_bfloat16
from .parse import SIZE, Address, Instruction, Operand, Pair, Vector
from .state import WINDOW, State, Unknown, constant

FENCES = {"membar.gl", "membar.sys", "fence.acq_rel.gpu", "fence.sc.gpu", "fence.acq_rel.sys", "fence.sc.sys"}
OF_BLOCK = {"membar.cta", "fence.acq_rel.cta", "fence.sc.cta"}
# Methods of Instructions by the first part of a name; the others are in OPERATIONS.
EFFECTS = {"mov", "selp", "setp", "cvt", "cvta", "ld", "st", "atom", "red", "membar", "fence", "shfl", "mma", "cp"}
EFFECTS |= {"trap"}


@dataclass
class Copy:
    """One cp.async of some threads, each in a group of its own."""

    threads: np.ndarray
    groups: np.ndarray
    offsets: np.ndarray
    data: list[np.ndarray]


class Instructions(State):
    """A method for each instruction with effects other than a result."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.copies: list[Copy] = []
        self.committed = np.zeros(self.count, np.int64)  # groups of copies of each thread
        self.counts: dict[str, int] = {}  # mma instructions by shape and type

    def mov(self, ins: Instruction) -> None:
        to, source = ins.operands
        kind = ins.parts[-1]
        if isinstance(source, Vector):  # the first part in the low bits
            part = f"b{8 * SIZE[kind] // len(source.parts)}"
            packed = np.zeros(len(self.threads), dtype_of(kind))
            for i, given in enumerate(source.parts):
                value = np.broadcast_to(self.read(given, part), len(self.threads))
                packed |= value.astype(packed.dtype) << packed.dtype.type(8 * SIZE[part] * i)
            self.write(to, packed)
        elif isinstance(to, Vector):
            part = f"b{8 * SIZE[kind] // len(to.parts)}"
            value = self.read(source, kind)
            for i, taken in enumerate(to.parts):
                shifted = value >> value.dtype.type(8 * SIZE[part] * i)
                if taken.name != "_":  # type: ignore[union-attr]
                    self.write(taken, shifted.astype(dtype_of(part)))
        else:
            self.write(to, self.read(source, kind))

    def selp(self, ins: Instruction) -> None:
        to, a, b, which = ins.operands
        kind = ins.parts[-1]
        self.write(to, np.where(self.read(which, "pred"), self.read(a, kind), self.read(b, kind)))

    def setp(self, ins: Instruction) -> None:
        to, a, b, *more = ins.operands
        _, how, *_, kind = ins.parts
        result = compare(how, self.read(a, kind), self.read(b, kind))
        for name, apply in (("and", np.logical_and), ("or", np.logical_or), ("xor", np.logical_xor)):
            if name in ins.parts:
                result = apply(result, self.read(more[0], "pred"))
        self.write(to.first if isinstance(to, Pair) else to, np.broadcast_to(result, len(self.threads)))
        if isinstance(to, Pair):
            self.write(to.second, np.broadcast_to(~result, len(self.threads)))

    def cvt(self, ins: Instruction) -> None:
        kind = ins.parts[-1]
        sources = [self.read(source, kind) for source in ins.operands[1:]]
        paired = ins.parts[-2] in ("f16x2", "bf16x2")
        self.write(ins.operands[0], (convert_pair if paired else convert)(ins.parts, *sources))

    def cvta(self, ins: Instruction) -> None:
        value = self.read(ins.operands[1], "u64")
        shift = np.uint64(WINDOW if "shared" in ins.parts else 0)
        value = value - shift if "to" in ins.parts else value + shift
        self.write(ins.operands[0], np.broadcast_to(value, len(self.threads)))

    def ld(self, ins: Instruction) -> None:
        to, where = ins.operands
        kind, parts = ins.parts[-1], ins.parts
        targets = to.parts if isinstance(to, Vector) else (to,)
        if "param" in parts:
            assert isinstance(where, Address)
            at = self.starts[where.base.name] + where.offset  # type: ignore[union-attr]
            values = np.frombuffer(self.parameters, dtype_of(kind), len(targets), at)
            values = [np.full(len(self.threads), value) for value in values]
        else:
            space, address = self.spaces(where, parts)
            coherent = "nc" not in parts
            values = self.memory.load(space, self.threads, address, dtype_of(kind), len(targets), coherent)
        for target, value in zip(targets, values, strict=True):
            self.write(target, value)

    def st(self, ins: Instruction) -> None:
        where, source = ins.operands
        kind = ins.parts[-1]
        space, address = self.spaces(where, ins.parts)
        sources = source.parts if isinstance(source, Vector) else (source,)
        values = [np.broadcast_to(self.read(given, kind), len(self.threads)) for given in sources]
        self.memory.store(space, self.threads, address, values)

    def atom(self, ins: Instruction) -> None:
        to, where, value = ins.operands
        self._atomic(ins, where, value, to)

    def red(self, ins: Instruction) -> None:
        self._atomic(ins, *ins.operands, None)

    def _atomic(self, ins: Instruction, where: Operand, value: Operand, to: Operand | None) -> None:
        kind = ins.parts[-1]
        space, address = self.spaces(where, ins.parts)
        if "add" not in ins.parts or space != "global" or kind[0] == "f":
            raise Unknown(ins.name)
        if {"release", "acq_rel"} & set(ins.parts):
            self.memory.order.at_fence(self.threads)
        added = np.broadcast_to(self.read(value, kind), len(self.threads))
        old = self.memory.add_atomically(self.threads, address, added)
        if {"acquire", "acq_rel"} & set(ins.parts):
            self.memory.order.at_fence(self.threads)
        if to is not None:
            self.write(to, old)

    def membar(self, ins: Instruction) -> None:
        if ins.name in FENCES:
            self.memory.order.at_fence(self.threads)
        elif ins.name not in OF_BLOCK:
            raise Unknown(ins.name)

    fence = membar

    def shfl(self, ins: Instruction) -> None:
        to, source, lane, clamp, mask = ins.operands
        if (np.asarray(self.read(mask, "u32")) != 0xFFFFFFFF).any():
            raise Unknown(f"{ins.name} of a part of the warp")
        here = self.threads % 32
        by, limit = self.read(lane, "u32").astype(np.int64), self.read(clamp, "u32").astype(np.int64)
        segment, limit = limit >> 8 & 31, limit & 31
        low, high = here & segment, (here & segment) | (limit & ~segment)
        mode = ins.parts[2]
        other = {"up": here - by, "down": here + by, "bfly": here ^ by, "idx": low | (by & ~segment)}[mode]
        valid = other >= high if mode == "up" else other <= high
        other = np.where(valid, other, here)
        values = self.read(source, "b32")
        number = np.arange(len(self.threads)) // 32 * 32 + other  # the warps that run are whole
        self.write(to.first if isinstance(to, Pair) else to, values[number])
        if isinstance(to, Pair):
            self.write(to.second, np.broadcast_to(valid, len(self.threads)))

    def mma(self, ins: Instruction) -> None:
        *start, shape, rows, columns, d, a, b, c = ins.parts
        if start != ["mma", "sync", "aligned"] or [rows, columns, d, c] != ["row", "col", "f32", "f32"] or a != b:
            raise Unknown(ins.name)
        to, *sources = [operand.parts for operand in ins.operands if isinstance(operand, Vector)]
        kinds = ("b32", "b32", "f32")
        words = [[self.read(word, kind) for word in source] for source, kind in zip(sources, kinds, strict=True)]
        for register, value in zip(to, multiply(shape, a, *words), strict=True):
            self.write(register, value)
        self.counts[f"{shape} {a}"] = self.counts.get(f"{shape} {a}", 0) + len(self.threads) // 32

    def cp(self, ins: Instruction) -> None:
        if ins.name == "cp.async.commit_group":
            self.committed[self.lanes] += 1
        elif ins.name == "cp.async.wait_all":
            self._finish(self.committed + 1)
        elif ins.name == "cp.async.wait_group":
            self._finish(self.committed - int(constant(ins.operands[0].text, "s32")))  # type: ignore[union-attr]
        elif ins.name in ("cp.async.cg.shared.global", "cp.async.ca.shared.global"):
            self._start_copy(ins)
        else:
            raise Unknown(ins.name)

    def _start_copy(self, ins: Instruction) -> None:
        to, source, size, *given = ins.operands
        width = int(constant(size.text, "s32"))  # type: ignore[union-attr]
        wanted = self.read(given[0], "u32") if given else np.uint32(width)
        wanted = np.broadcast_to(wanted, len(self.threads))
        if not np.isin(wanted, (0, width)).all():
            raise Unknown(f"{ins.name} of a part of {width} bytes")
        data = [np.zeros(len(self.threads), np.uint32) for _ in range(width // 4)]
        reading = wanted > 0
        if reading.any():
            address = self.address(source)[reading]
            found = self.memory.load("global", self.threads[reading], address, np.uint32, len(data))
            for value, part in zip(data, found, strict=True):
                value[reading] = part
        offsets = self.memory.begin_copy(self.threads, self.address(to), width)
        self.copies.append(Copy(self.threads, self.committed[self.lanes].copy(), offsets, data))

    def _finish(self, until: np.ndarray) -> None:
        """Complete the copies of the threads that run whose group is before that thread's `until`."""
        runs = np.zeros(self.count, bool)
        runs[self.lanes] = True
        left = []
        for copy in self.copies:
            done = runs[copy.threads] & (copy.groups < until[copy.threads])
            if done.any():
                self.memory.finish_copy(copy.threads[done], copy.offsets[done], [part[done] for part in copy.data])
            if not done.all():
                data = [part[~done] for part in copy.data]
                left.append(Copy(copy.threads[~done], copy.groups[~done], copy.offsets[~done], data))
        self.copies = left

    def trap(self, ins: Instruction) -> None:
        raise Violation("trap")

    def simple(self, ins: Instruction) -> None:
        """An instruction of OPERATIONS: every source has the type that the name ends with, except counts of bits."""
        parts, (to, *sources) = ins.parts, ins.operands
        kind = parts[-1]
        apply = OPERATIONS[parts[0]]
        kinds = [kind] * len(sources)
        if parts[0] in ("shl", "shr"):
            kinds[1] = "u32"
        elif parts[0] in ("bfi", "bfe"):
            kinds[-2:] = ["u32", "u32"]
        elif parts[0] == "mad" and "wide" in parts:
            kinds[2] = f"{kind[0]}{2 * int(kind[1:])}"
        values = [self.read(source, each) for source, each in zip(sources, kinds, strict=True)]
        if kind == "bf16":
            result = to_bfloat16(apply(parts, *map(from_bfloat16, values)))
        elif kind in ("f16x2", "bf16x2"):
            raise Unknown(ins.name)
        else:
            result = apply(parts, *values)
        self.write(to, np.broadcast_to(result, len(self.threads)))
