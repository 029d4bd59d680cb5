"""Runs emulated kernels on NumPy arrays.

    device = Device(module, seed=3, counting=True)
    x = device.input("x", array, "bfloat16")                    # with its strides
    y = device.input("y", array, "float32", layout="padded")    # or in one of LAYOUTS
    out = device.output("out", (c, c), "float32")               # NaN; reading it before it is written is an error
    partial = device.workspace("partial", 1024, "float64")      # the same, one-dimensional
    counter = device.zeros("counter", 1)                        # int32
    device.call("squared_difference", x.buffer, y.buffer, partial.buffer, counter.buffer, out.buffer)
    out.numpy()                                                 # float32 for float16 and bfloat16 too
    device.counters                                             # of the last launch, if counting

A kernel that does what CUDA does not allow raises `module.Violation`, a RuntimeError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

DTYPES = ("float32", "float64", "float16", "bfloat16")
LAYOUTS = ("nchw", "channels_last", "padded", "channels_last_padded", "offset", "channels_last_offset")

STORAGE = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "uint8": np.dtype(np.uint8),
    "int32": np.dtype(np.int32),
}


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bits of `x` rounded to nearest bfloat16, ties to even."""
    x = np.asarray(x, np.float32)
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """`x` rounded to `dtype`, as float64 for float64 and float32 otherwise."""
    if dtype == "bfloat16":
        return from_bfloat16(to_bfloat16(x))
    return np.asarray(x).astype(STORAGE[dtype]).astype(np.float64 if dtype == "float64" else np.float32)


# Bits of values that are not finite: CUDA's canonical NaN, its negative, other NaN, infinities.
NOT_FINITE = {
    "float32": (0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800000, 0xFF800000),
    "float64": (0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0x7FF8000000000000, 0x7FF0000000000000, 0xFFF0000000000000),
    "float16": (0x7FFF, 0xFFFF, 0x7E00, 0x7C00, 0xFC00),
    "bfloat16": (0x7FFF, 0xFFFF, 0x7FC0, 0x7F80, 0xFF80),
}


def with_bits(x: np.ndarray, dtype: str, index: tuple[int, ...], bits: int) -> np.ndarray:
    """`x` as stored in `dtype`, with one value replaced by these bits."""
    stored = to_bfloat16(x) if dtype == "bfloat16" else np.array(x, STORAGE[dtype])
    stored.view(f"u{stored.itemsize}")[index] = bits
    return stored


def compute_dtype(dtype: str) -> str:
    """The dtype in which features of `dtype` are computed and accumulated."""
    return "float64" if dtype == "float64" else "float32"


def strides_of(shape: tuple[int, ...], layout: str) -> tuple[tuple[int, ...], int]:
    """Element strides and offset of the first element for a map (B, C, ...) in `layout`.

    Padding is a multiple of 16 bytes for every dtype, so that wide accesses stay possible; an offset of one element
    forbids them.
    """
    order = list(range(len(shape)))
    if layout.startswith("channels_last"):
        order = [0, *order[2:], 1]
    strides = [0] * len(shape)
    step = 1
    for place, axis in enumerate(reversed(order)):
        strides[axis] = step
        step *= max(shape[axis], 1)
        if layout.endswith("padded") and place == 0:
            step = (step + 7) // 8 * 8 + 8
    return tuple(strides), 1 if layout.endswith("offset") else 0


@dataclass
class Array:
    """A buffer on the emulated device, with a view of its content."""

    buffer: Any
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.buffer.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
        return tuple(self.buffer.strides)

    def raw(self) -> np.ndarray:
        """The values as they are stored: bits for bfloat16."""
        return np.frombuffer(self.buffer.read(), STORAGE[self.dtype]).reshape(self.shape)

    def numpy(self) -> np.ndarray:
        raw = self.raw()
        if self.dtype == "bfloat16":
            return from_bfloat16(raw)
        return raw.astype(np.float32) if self.dtype == "float16" else raw


class Device:
    """Makes buffers and launches kernels; buffers live as long as their `Array`."""

    def __init__(self, module: Any, seed: int = 0, counting: bool = False) -> None:
        self.module = module
        self.counting = counting
        module.set_seed(seed)
        module.set_counting(counting)

    def _make(
        self,
        name: str,
        shape: Any,
        dtype: str,
        kind: str,
        *,
        layout: str | None = None,
        strides: Any = None,
        offset: int = 0,
        sparse: bool = False,
    ) -> Array:
        shape = tuple(int(n) for n in np.atleast_1d(shape)) if not isinstance(shape, tuple) else shape
        if strides is None:
            strides, offset_of_layout = strides_of(shape, layout or "nchw")
            offset = offset or offset_of_layout
        kinds = self.module.Buffer.Kind
        buffer = self.module.Buffer(
            name, getattr(self.module.Dtype, dtype), shape, strides, offset, getattr(kinds, kind), sparse
        )
        return Array(buffer, dtype)

    def _filled(self, name: str, array: Any, dtype: str, kind: str, layout: Any, strides: Any, offset: int) -> Array:
        array = np.asarray(array)
        if layout is None and strides is None and array.size:
            strides = tuple(n // array.itemsize for n in array.strides)
        made = self._make(name, array.shape, dtype, kind, layout=layout, strides=strides, offset=offset)
        # bfloat16 is passed as bits in uint16; other values are rounded here.
        bits = array if array.dtype == STORAGE[dtype] else to_bfloat16(array) if dtype == "bfloat16" else None
        values = array.astype(STORAGE[dtype]) if bits is None else bits
        made.buffer.fill(np.ascontiguousarray(values).tobytes())
        return made

    def input(
        self, name: str, array: Any, dtype: str, *, layout: str | None = None, strides: Any = None, offset: int = 0
    ) -> Array:
        """A read-only buffer. `strides` and `offset` count elements."""
        return self._filled(name, array, dtype, "input", layout, strides, offset)

    def in_place(
        self, name: str, array: Any, dtype: str, *, layout: str | None = None, strides: Any = None, offset: int = 0
    ) -> Array:
        """A buffer that kernels may read and write."""
        return self._filled(name, array, dtype, "in_place", layout, strides, offset)

    def output(
        self, name: str, shape: Any, dtype: str, *, layout: str | None = None, strides: Any = None, offset: int = 0
    ) -> Array:
        """A buffer of NaN that a kernel must write before it reads."""
        return self._make(name, shape, dtype, "output", layout=layout, strides=strides, offset=offset)

    def workspace(self, name: str, count: int, dtype: str) -> Array:
        return self.output(name, (int(count),), dtype)

    def zeros(self, name: str, count: int, dtype: str = "int32") -> Array:
        return self.in_place(name, np.zeros(int(count), STORAGE[dtype]), dtype)

    def sparse(
        self, name: str, shape: Any, dtype: str, *, strides: Any = None, offset: int = 0, kind: str = "input"
    ) -> Array:
        """Zeros without memory until they are accessed, for strides beyond 2^31; see `buffer.poke` and `peek`."""
        return self._make(name, tuple(shape), dtype, kind, strides=strides, offset=offset, sparse=True)

    def call(self, name: str, *arguments: Any) -> Any:
        """`module.name(...)`, or `module.part.name(...)` for a dotted name; arrays are passed as their buffers."""
        function = self.module
        for part in name.split("."):
            function = getattr(function, part)
        return function(*(a.buffer if isinstance(a, Array) else a for a in arguments))

    @property
    def counters(self) -> dict[str, Any]:
        return self.module.counters()


def sector_efficiency(traffic: dict[str, int]) -> float:
    """Requested bytes relative to the bytes of their 32-byte sectors."""
    return traffic["bytes"] / (32 * traffic["sectors"]) if traffic["sectors"] else 1.0


def bank_conflicts(part: dict[str, Any]) -> int:
    """Wavefronts of shared memory in excess of the minimum."""
    return part["shared"]["wavefronts"] - part["shared"]["least"]
