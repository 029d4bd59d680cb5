"""Arithmetic of PTX on arrays with one value per thread: a function for each instruction without side effects.

An operation takes the instruction's modifiers, its last type and its sources, and returns the result. NumPy rounds to
nearest as the instructions do that are marked .rn; fma is exact for 32 bits and rounds twice for 64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any  # one value per thread, or one value


def dtype_of(kind: str) -> Any:
    """s32 to int32, b32 and u32 to uint32, f32 to float32; bf16 has no dtype and is held as bits."""
    if kind == "pred":
        return np.dtype(bool)
    letter, bits = (kind[0], int(kind[1:])) if kind != "bf16" else ("b", 16)
    return np.dtype(f"{'f' if letter == 'f' else 'i' if letter == 's' else 'u'}{bits // 8}")


def to_bfloat16(x: Array) -> Array:
    bits = x.view(np.uint32)
    return np.where(np.isnan(x), np.uint16(0x7FFF), ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))


def from_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def wide(x: Array) -> Array:
    """The same integers with twice the bits."""
    return x.astype(np.dtype(f"{x.dtype.kind}{2 * x.itemsize}"))


def multiply(parts: list[str], a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a * b
    if "wide" in parts:
        return wide(a) * wide(b)
    if "hi" in parts:
        if a.itemsize == 4:
            return (wide(a) * wide(b) >> 32).astype(a.dtype)
        exact = np.atleast_1d(a.astype(object) * b.astype(object))
        return np.array([x >> 64 for x in exact.tolist()], a.dtype)
    return a * b


def fused(parts: list[str], a: Array, b: Array, c: Array) -> Array:
    if a.dtype == np.float32:
        return (a.astype(np.float64) * b + c).astype(np.float32)
    return (a.astype(np.longdouble) * b + c).astype(a.dtype)


def divide(parts: list[str], a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    quotient = np.floor_divide(np.abs(a), np.where(b == 0, 1, np.abs(b)).astype(a.dtype))
    return np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype) if a.dtype.kind == "i" else quotient


def remainder(parts: list[str], a: Array, b: Array) -> Array:
    return a - divide(parts, a, b) * b


def shift_left(parts: list[str], a: Array, by: Array) -> Array:
    bits = 8 * a.itemsize
    return np.where(by < bits, a << np.minimum(by, bits - 1).astype(a.dtype), 0).astype(a.dtype)


def shift_right(parts: list[str], a: Array, by: Array) -> Array:
    bits = 8 * a.itemsize
    moved = a >> np.minimum(by, bits - 1).astype(a.dtype)
    return moved if a.dtype.kind == "i" else np.where(by < bits, moved, 0).astype(a.dtype)


def funnel(parts: list[str], a: Array, b: Array, by: Array) -> Array:
    """shf: 32 bits of the 64 of b:a."""
    both = b.astype(np.uint64) << np.uint64(32) | a
    by = np.minimum(by, 32) if "clamp" in parts else by & 31
    return (both << by >> np.uint64(32) if "l" in parts else both >> by).astype(np.uint32)


def lop3(parts: list[str], a: Array, b: Array, c: Array, table: Array) -> Array:
    out = np.zeros_like(a | b | c)
    for i in range(8):
        if int(table) >> i & 1:
            out = out | ((a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c))
    return out


def permute(parts: list[str], a: Array, b: Array, selector: Array) -> Array:
    """prmt in its default mode: each four bits of the selector choose a byte of b:a, or its sign replicated."""
    both = b.astype(np.uint64) << np.uint64(32) | a
    out = np.zeros(np.broadcast(both, selector).shape, np.uint32)
    for i in range(4):
        choice = (selector >> np.uint32(4 * i)).astype(np.uint64)
        byte = both >> (choice & np.uint64(7)) * np.uint64(8) & np.uint64(255)
        byte = np.where(choice & np.uint64(8), np.where(byte & np.uint64(128), 255, 0), byte)
        out |= byte.astype(np.uint32) << np.uint32(8 * i)
    return out


def insert(parts: list[str], a: Array, b: Array, at: Array, length: Array) -> Array:
    """bfi: `length` bits of a over those of b from `at`."""
    bits = 8 * a.itemsize
    one = a.dtype.type(1)
    at, length = at.astype(a.dtype), np.minimum(length, bits).astype(a.dtype)
    ones = np.where(length < bits, (one << np.minimum(length, a.dtype.type(bits - 1))) - one, ~a.dtype.type(0))
    mask = (ones << at).astype(a.dtype)
    return (b & ~mask) | (a << at & mask)


def extract(parts: list[str], a: Array, at: Array, length: Array) -> Array:
    """bfe of unsigned or signed values; the field lies inside."""
    bits = a.dtype.type(8 * a.itemsize)
    at, length = at.astype(a.dtype), length.astype(a.dtype)
    return a << (bits - at - length) >> (bits - length)


COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def compare(how: str, a: Array, b: Array) -> Array:
    if a.dtype.kind != "f":
        return COMPARE[how](a, b)
    unordered = np.isnan(a) | np.isnan(b)
    if how in ("num", "nan"):
        return unordered if how == "nan" else ~unordered
    if how in COMPARE:
        return COMPARE[how](a, b) & ~unordered
    return COMPARE[how[:-1]](a, b) | unordered  # ltu, neu, ...


def extremum(which: Any, keeps_nan: Any) -> Callable[..., Array]:
    def apply(parts: list[str], a: Array, b: Array) -> Array:
        return (keeps_nan if "NaN" in parts else which)(a, b)

    return apply


def convert(parts: list[str], value: Array) -> Array:
    """cvt.rounding.to.from, between integers and floats, of which bfloat16 is given and returned as bits."""
    to, source = parts[-2:]
    if source == "bf16":
        value = from_bfloat16(value)
    if to == "bf16":
        return to_bfloat16(value.astype(np.float32))
    if to == "tf32":
        return (value.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    target = dtype_of(to)
    if value.dtype.kind == "f" and target.kind != "f":
        rounding = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
        [how] = [rounding[part] for part in parts if part in rounding]
        limits = np.iinfo(target)
        whole = np.nan_to_num(how(value.astype(np.longdouble)), nan=0)
        return np.clip(whole, limits.min, limits.max).astype(target)
    for part, how in (("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)):
        if part in parts:
            return how(value).astype(target)
    if "sat" in parts and target.kind == "f":
        value = np.clip(np.nan_to_num(value, nan=0), 0, 1)
    return value.astype(target)


def convert_pair(parts: list[str], high: Array, low: Array) -> Array:
    """cvt.rn.f16x2.f32 and cvt.rn.bf16x2.f32."""
    narrow = to_bfloat16 if "bf16x2" in parts else lambda x: x.astype(np.float16).view(np.uint16)
    return narrow(high).astype(np.uint32) << np.uint32(16) | narrow(low)


def count_bits(parts: list[str], a: Array) -> Array:
    return sum((a >> a.dtype.type(i) & a.dtype.type(1)).astype(np.uint32) for i in range(8 * a.itemsize))


OPERATIONS: dict[str, Callable[..., Array]] = {
    "add": lambda parts, a, b: a + b,
    "sub": lambda parts, a, b: a - b,
    "mul": multiply,
    "mad": lambda parts, a, b, c: multiply(parts, a, b) + c,
    "fma": fused,
    "div": divide,
    "rem": remainder,
    "abs": lambda parts, a: np.abs(a),
    "neg": lambda parts, a: -a,
    "min": extremum(np.fmin, np.minimum),
    "max": extremum(np.fmax, np.maximum),
    "sqrt": lambda parts, a: np.sqrt(a),
    "rcp": lambda parts, a: a.dtype.type(1) / a,
    "rsqrt": lambda parts, a: a.dtype.type(1) / np.sqrt(a),
    "ex2": lambda parts, a: np.exp2(a),
    "and": lambda parts, a, b: a & b,
    "or": lambda parts, a, b: a | b,
    "xor": lambda parts, a, b: a ^ b,
    "not": lambda parts, a: ~a,
    "cnot": lambda parts, a: (a == 0).astype(a.dtype),
    "shl": shift_left,
    "shr": shift_right,
    "shf": funnel,
    "lop3": lop3,
    "prmt": permute,
    "bfi": insert,
    "bfe": extract,
    "popc": count_bits,
}
