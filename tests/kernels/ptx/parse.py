"""Reads the text of a PTX module: its kernels with parameters, shared memory, labels and instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

SIZE = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "b32": 4, "u32": 4}
SIZE |= {"s32": 4, "f32": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8}


@dataclass(frozen=True)
class Register:
    name: str  # %r12, or a special register such as %tid.x


@dataclass(frozen=True)
class Immediate:
    text: str  # an integer, or the bits of a float after 0f or 0d


@dataclass(frozen=True)
class Symbol:
    name: str  # a variable, a parameter or a label


@dataclass(frozen=True)
class Address:
    base: Register | Symbol | Immediate
    offset: int


@dataclass(frozen=True)
class Vector:
    parts: tuple[Register | Immediate, ...]


@dataclass(frozen=True)
class Pair:
    """`%r1|%p1`: a result and a predicate."""

    first: Register
    second: Register


Operand = Register | Immediate | Symbol | Address | Vector | Pair


@dataclass(frozen=True)
class Instruction:
    name: str  # with its modifiers: ld.global.nc.v4.f32
    operands: tuple[Operand, ...]
    guard: str | None  # a predicate register
    negated: bool
    text: str
    line: str  # of the source: gram_units.cuh:69

    @cached_property
    def parts(self) -> list[str]:
        return self.name.split(".")

    def __str__(self) -> str:
        return f"{self.text} ({self.line})"


@dataclass(frozen=True)
class Variable:
    name: str
    bytes: int  # 0 for dynamic shared memory
    align: int


@dataclass
class Kernel:
    name: str
    parameters: list[Variable]
    shared: list[Variable]
    widths: dict[str, int]  # prefix of registers to bytes: %rd to 8; 1 for predicates
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @cached_property
    def targets(self) -> set[int]:
        return {*self.labels.values()}


VARIABLE = re.compile(r"\.align (\d+) \.(\w+) ([\w$]+)(?:\[(\d*)\])?|\.(\w+) ([\w$]+)(?:\[(\d*)\])?")
ENTRY = re.compile(r"\.entry ([\w$]+)\s*\((.*?)\)(.*?)\n\{\n(.*?)\n\}", re.DOTALL)
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)


def variable(text: str) -> Variable:
    """`.align 8 .b8 name[56]` or `.u64 name`, after .param or .shared."""
    found = VARIABLE.search(text)
    assert found, text
    align, kind, name, count, *short = found.groups()
    if align is None:
        kind, name, count = short
        align = SIZE[kind]
    return Variable(name, SIZE[kind] * (1 if count is None else int(count or 0)), int(align))


def operands(text: str) -> tuple[Operand, ...]:
    parts = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text)
    return tuple(operand(part.strip()) for part in parts if part.strip())


def operand(text: str) -> Operand:
    if text.startswith("{"):
        return Vector(tuple(operand(part.strip()) for part in text[1:-1].split(",")))  # type: ignore[misc]
    if text.startswith("["):
        base, _, offset = text[1:-1].partition("+")
        return Address(operand(base), int(offset or 0))  # type: ignore[arg-type]
    if "|" in text:
        return Pair(*(Register(part) for part in text.split("|")))
    if text.startswith("%"):
        return Register(text)
    return Immediate(text) if text[0] in "-0123456789" else Symbol(text)


class Module(Mapping[str, Kernel]):
    """The kernels of a module by name, each read when it is first asked for."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"//[^\n]*", "", text)
        self._files = {n: PurePosixPath(path).name for n, path in re.findall(r'\.file\s+(\d+)\s+"([^"]*)"', text)}
        self._common = [variable(line) for line in re.findall(r"^(?:\.\w+ )?\.shared (.*);", text, re.MULTILINE)]
        self._texts = {name: (parameters, body) for name, parameters, _, body in ENTRY.findall(text)}
        self._kernels: dict[str, Kernel] = {}

    def __getitem__(self, name: str) -> Kernel:
        if name not in self._kernels:
            self._kernels[name] = _kernel(name, *self._texts[name], self._common, self._files)
        return self._kernels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def _kernel(name: str, parameters: str, body: str, common: list[Variable], files: dict[str, str]) -> Kernel:
    given = [variable(line) for line in re.findall(r"\.param ([^,\n]*)", parameters)]
    kernel = Kernel(name, given, list(common), {})
    line = "?"
    for row in body.splitlines():
        row = row.strip()
        if located := re.match(r"\.loc\s+(\d+) (\d+)", row):
            line = f"{files[located[1]]}:{located[2]}"
            continue
        if label := re.match(r"([$\w]+):$", row):
            kernel.labels[label[1]] = len(kernel.instructions)
            continue
        # Inline assembly may be in braces of its own.
        for statement in re.sub(r"^\{\s*|;\s*\}$", "", row).split(";"):
            statement = statement.strip()
            if not statement or statement == "}":
                continue
            if declared := re.match(r"\.reg \.(\w+)\s+(%\w+)<\d+>", statement):
                kernel.widths[declared[2]] = SIZE[declared[1]]
            elif statement.startswith(".shared"):
                kernel.shared.append(variable(statement))
            elif not statement.startswith((".pragma", ".loc")):
                kernel.instructions.append(_instruction(statement, line))
    return kernel


def _instruction(statement: str, line: str) -> Instruction:
    found = STATEMENT.fullmatch(statement)
    assert found, f"not an instruction: {statement!r}"
    negated, guard, name, rest = found.groups()
    return Instruction(name, operands(rest), guard, bool(negated), " ".join(statement.split()), line)
