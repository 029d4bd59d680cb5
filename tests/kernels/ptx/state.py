"""Registers and operands of the threads of a block."""

from __future__ import annotations

from typing import Any

import numpy as np

from .memory import Memory, Violation
from .operations import dtype_of
from .parse import Address, Immediate, Kernel, Operand, Register, Symbol

WINDOW = 1 << 24  # generic addresses of shared memory start here


class Unknown(NotImplementedError):
    """An instruction that the interpreter does not have."""


def constant(text: str, kind: str) -> Any:
    """An immediate: a decimal or hexadecimal integer, or 0f and 0d with the bits of a float."""
    dtype = dtype_of(kind)
    if text[:2] in ("0f", "0F"):
        value = np.uint32(int(text[2:], 16)).view(np.float32)
        return value.astype(dtype) if dtype.kind == "f" else value.view(dtype)
    if text[:2] in ("0d", "0D"):
        return np.uint64(int(text[2:], 16)).view(np.float64).view(dtype)
    bits = int(text, 0) % (1 << 8 * dtype.itemsize)
    if kind == "pred":
        return np.bool_(bits)
    return np.dtype(f"u{dtype.itemsize}").type(bits).view(dtype)


class State:
    """The registers of all threads of a block, and which threads run."""

    def __init__(self, kernel: Kernel, memory: Memory, variables: dict[str, int], launch: dict[str, Any]) -> None:
        self.kernel, self.memory, self.variables = kernel, memory, variables
        self.parameters: bytes = launch["parameters"]
        self.starts: dict[str, int] = launch["starts"]
        self.count: int = launch["threads"]
        thread = np.arange(self.count, dtype=np.uint32)
        self.special = {"%tid.x": thread, "%laneid": thread % 32}
        fixed = {"%ctaid.x": launch["block"], "%nctaid.x": launch["grid"], "%ntid.x": self.count}
        fixed |= dict.fromkeys(("%tid.y", "%tid.z", "%ctaid.y", "%ctaid.z"), 0)
        fixed |= dict.fromkeys(("%nctaid.y", "%nctaid.z", "%ntid.y", "%ntid.z"), 1)
        self.special |= {name: np.full(self.count, value, np.uint32) for name, value in fixed.items()}
        self.registers: dict[str, np.ndarray] = {}
        self.lanes: Any = slice(None)  # an index of the threads that run
        self.select(np.ones(self.count, bool))

    def select(self, which: np.ndarray) -> None:
        """The threads that run; whole warps or not."""
        self.threads = np.flatnonzero(which)
        self.lanes = slice(None) if which.all() else self.threads
        self.whole = self.count % 32 == 0 and 32 * which.reshape(-1, 32).all(axis=1).sum() == len(self.threads)

    def width(self, register: Register) -> int:
        return self.kernel.widths[register.name.rstrip("0123456789")]

    def read(self, operand: Operand, kind: str) -> Any:
        if isinstance(operand, Register):
            if operand.name in self.special:
                return self.special[operand.name][self.lanes].astype(dtype_of(kind))
            try:
                held = self.registers[operand.name][self.lanes]
            except KeyError:
                raise Violation(f"{operand.name} is read before it is written") from None
            dtype = dtype_of(kind)
            if held.itemsize != dtype.itemsize:
                held = held.astype(np.dtype(f"u{dtype.itemsize}"))
            return held.view(dtype)
        if isinstance(operand, Immediate):
            return constant(operand.text, kind)
        if isinstance(operand, Symbol):
            return dtype_of(kind).type(self.variables[operand.name])
        raise Unknown(f"operand {operand}")

    def write(self, operand: Operand, value: Any) -> None:
        assert isinstance(operand, Register)
        if operand.name == "_":
            return
        size = self.width(operand)
        dtype = np.dtype(bool) if value.dtype == bool else np.dtype(f"u{size}")
        if value.itemsize != size:  # a narrow load into a wide register
            value = value.astype(np.dtype(f"{'i' if value.dtype.kind == 'i' else 'u'}{size}"))
        if operand.name not in self.registers:
            self.registers[operand.name] = np.zeros(self.count, dtype)
        self.registers[operand.name][self.lanes] = value.view(dtype)

    def address(self, operand: Operand) -> np.ndarray:
        assert isinstance(operand, Address)
        base = operand.base
        if isinstance(base, Symbol):
            value: Any = np.full(len(self.threads), self.variables[base.name], np.uint64)
        else:
            wide = isinstance(base, Immediate) or self.width(base) == 8
            value = np.broadcast_to(self.read(base, "u64" if wide else "u32").astype(np.uint64), len(self.threads))
        return value + np.uint64(operand.offset % (1 << 64))

    def spaces(self, operand: Operand, parts: list[str]) -> tuple[str, np.ndarray]:
        """The state space and the addresses in it, also of a generic address."""
        space = next((part for part in parts if part in ("global", "shared", "local", "const")), "generic")
        address = self.address(operand)
        if space == "generic":
            if (address < WINDOW).any():
                raise Violation("a generic address is null or nearly so")
            space = "shared" if (address < 2 * WINDOW).all() else "global"
            address = address - np.uint64(WINDOW if space == "shared" else 0)
        if space not in ("global", "shared"):
            raise Unknown(f"state space {space}")
        return space, address
