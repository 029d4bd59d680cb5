"""MATLAB's MAT-file level 5: cell arrays, structs, text and real numbers.

The layout is described in MathWorks' "MAT-File Format": a header of 128 bytes, then elements, each a type, a size and
as many bytes. Numbers are read on request, and every size is checked against the file's.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from fastnst.weights.readers.common import read_at

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_CELL, _STRUCT, _CHAR = 1, 2, 4  # classes of arrays
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CLASSES = {
    **{6: "float64", 7: "float32", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32"},
    **{14: "int64", 15: "uint64"},
}
_COMPLEX = 0x800
_SMALL = 1 << 16  # bytes of names, sizes and texts
_ARRAYS = 100_000  # in one file; MatConvNet's VGGs have some 3,000
_DEPTH = 16  # arrays within arrays
_INFLATED = 1 << 30  # bytes of one variable; the layers of MatConvNet's VGG-19 have 575 million


@dataclass(frozen=True)
class Array:
    """An array of numbers; ``read`` returns them flat, the first axis changing fastest."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray[Any, Any]]
    position: int = 0


def variables(file: BinaryIO, wanted: Collection[str]) -> dict[str, Any]:
    """Return the ``wanted`` variables: cell arrays as lists, structs as lists of dicts, texts, and ``Array``.

    Arrays of other kinds (sparse, objects, functions) are None. ValueError for a damaged file.
    """
    order = {b"IM": "<", b"MI": ">"}[read_at(file, _HEADER - 2, 2)]
    end = os.fstat(file.fileno()).st_size
    outer = _Parser(lambda start, count: read_at(file, start, count), order, wanted)
    found: dict[str, Any] = {}
    at = _HEADER
    while at < end:
        kind, start, size, after = outer.element(at, end)
        if kind == _COMPRESSED:
            variable = _Parser(_Inflated(file, start, size).read, order, wanted).variable(0, _INFLATED)
            at = start + size
        else:
            variable = outer.variable(at, end)
            at = after
        if found.keys() & variable.keys():
            raise ValueError("a variable twice")
        found |= variable
    return found


class _Inflated:
    """The bytes of a compressed element, decompressed as they are read."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self.file, self.start, self.end = file, start, start + size
        self._rewind()

    def _rewind(self) -> None:
        self.packed, self.position, self.tail, self.tag = self.start, 0, b"", b""
        self.inflate = zlib.decompressobj()

    def read(self, start: int, count: int) -> bytes:
        back = self.position - start
        if count <= back <= len(self.tag):  # the contents of a small element are in its tag
            return self.tag[len(self.tag) - back :][:count]
        if back > 0:
            self._rewind()
        while self.position < start:
            self._next(min(start - self.position, 1 << 20))
        parts = []
        while self.position < start + count:
            parts.append(self._next(start + count - self.position))
        data = b"".join(parts)
        self.tag = data[-8:]
        return data

    def _next(self, most: int) -> bytes:
        """Decompress up to ``most`` bytes, and at least one."""
        while True:
            packed = self.tail or read_at(self.file, self.packed, min(1 << 14, self.end - self.packed))
            self.packed += 0 if self.tail else len(packed)
            data = self.inflate.decompress(packed, most)
            self.tail = self.inflate.unconsumed_tail
            self.position += len(data)
            if data:
                return data
            if self.inflate.eof or not packed:
                raise ValueError("a compressed element ends early")


class _Parser:
    """Reads arrays from ``read(start, count)`` and returns the variables in ``wanted``."""

    def __init__(self, read: Callable[[int, int], bytes], order: str, wanted: Collection[str]) -> None:
        self.read, self.order, self.wanted = read, order, wanted
        self.arrays = 0

    def variable(self, at: int, end: int) -> dict[str, Any]:
        """Return the variable at offset ``at`` by its name; empty for one that is not wanted."""
        kind, start, size, _ = self.element(at, end)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where a variable should be")
        if not size:
            return {}
        end = start + size
        _, _, start = self._small(start, end)  # flags
        _, _, start = self._small(start, end)  # shape
        _, name, _ = self._small(start, end)
        variable = name.decode("latin-1")
        return {variable: self._array(at, end, 0)[0]} if variable in self.wanted else {}

    def element(self, at: int, end: int) -> tuple[int, int, int, int]:
        """Return type, start, size of the element at offset ``at``, and the start of the next."""
        kind, size = self._numbers(self.read(at, 8), "u4")
        if kind >> 16:  # a small element: type and size in four bytes, the contents in the other four
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            after = start + -(-size // 8) * 8
        if start + size > min(end, after):
            raise ValueError("an element is longer than what it is in")
        return kind, start, size, min(after, end)

    def _numbers(self, data: bytes, form: str) -> list[int]:
        return [int(number) for number in np.frombuffer(data, self.order + form)]

    def _small(self, at: int, end: int) -> tuple[int, bytes, int]:
        """Read an element of names, sizes or text; return its type, its contents and the start of the next."""
        kind, start, size, after = self.element(at, end)
        if size > _SMALL:
            raise ValueError(f"a name, shape or text of {size} bytes")
        return kind, self.read(start, size), after

    def _array(self, at: int, end: int, depth: int) -> tuple[Any, int]:
        """Return the array at offset ``at`` and the start of the next."""
        kind, start, size, after = self.element(at, end)
        self._count(1)
        if kind != _MATRIX or depth > _DEPTH:
            raise ValueError("arrays nested too deep" if kind == _MATRIX else f"an element of type {kind} for an array")
        if not size:  # MATLAB's []
            return Array((0, 0), "float64", lambda: np.zeros(0)), after
        end = start + size
        _, flags, start = self._small(start, end)
        _, sides, start = self._small(start, end)
        _, _name, start = self._small(start, end)
        flag = self._numbers(flags[:4], "u4")[0]
        shape = tuple(self._numbers(sides, "i4"))
        if any(side < 0 for side in shape):
            raise ValueError("a negative shape")
        return self._contents(flag & 0xFF, bool(flag & _COMPLEX), shape, start, end, depth), after

    def _contents(self, kind: int, complex_: bool, shape: tuple[int, ...], start: int, end: int, depth: int) -> Any:
        if kind == _CELL:
            return self._arrays(math.prod(shape), start, end, depth)[0]
        if kind == _STRUCT:
            return self._structs(math.prod(shape), start, end, depth)
        if kind == _CHAR:
            form, text, _ = self._small(start, end)
            encoding = _TEXTS[form] + {"<": "-le", ">": "-be"}[self.order] * (form in (4, 17, 18))
            return text.decode(encoding, "replace")
        if kind in _CLASSES:
            dtype = "complex" if complex_ else _CLASSES[kind]
            return Array(shape, dtype, lambda: self._values(math.prod(shape), dtype, start, end), start)
        return None

    def _count(self, arrays: int) -> None:
        self.arrays += arrays
        if self.arrays > _ARRAYS:
            raise ValueError(f"more than {_ARRAYS} arrays")

    def _arrays(self, count: int, start: int, end: int, depth: int) -> tuple[list[Any], int]:
        items = []
        for _ in range(count):
            item, start = self._array(start, end, depth + 1)
            items.append(item)
        return items, start

    def _structs(self, count: int, start: int, end: int, depth: int) -> list[dict[str, Any]]:
        _, width, start = self._small(start, end)
        _, names, start = self._small(start, end)
        step = self._numbers(width, "i4")[0]
        if step <= 0:
            raise ValueError("field names without a length")
        fields = [names[at : at + step].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), step)]
        self._count(count)
        structs = []
        for _ in range(count):
            values, start = self._arrays(len(fields), start, end, depth)
            structs.append(dict(zip(fields, values, strict=True)))
        return structs

    def _values(self, count: int, dtype: str, start: int, end: int) -> np.ndarray[Any, Any]:
        form, start, size, _ = self.element(start, end)
        stored = np.dtype(self.order + _NUMBERS[form])
        if size != count * stored.itemsize:
            raise ValueError(f"{size} bytes for {count} numbers")
        return np.frombuffer(self.read(start, size), stored).astype(dtype)
