"""The product of mma.sync, from the tables of NVIDIA's PTX ISA manual.

They are in "Warp Level Matrix Instructions", sections "Matrix Fragments for mma.m16n8k8" and "Matrix Fragments for
mma.m16n8k16 with floating point type". With g = laneid / 4 (groupID there) and t = laneid % 4 (threadID_in_group), each
element of a fragment is written as its row and its column, each the factors of g, t and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Place = tuple[tuple[int, int, int], tuple[int, int, int]]

# The accumulators c0..c3 and d0..d3 of 32 bits are the same for both shapes.
ACCUMULATOR: list[Place] = [
    ((1, 0, 0), (0, 2, 0)),
    ((1, 0, 0), (0, 2, 1)),
    ((1, 0, 8), (0, 2, 0)),
    ((1, 0, 8), (0, 2, 1)),
]


@dataclass(frozen=True)
class Fragments:
    depth: int
    per_register: int  # elements of A and B in 32 bits, the first in the low bits
    a: list[Place]
    b: list[Place]


TABLES = {
    # a0..a3, b0 and b1: one element in each register
    ("m16n8k8", "tf32"): Fragments(
        8,
        1,
        a=[((1, 0, 0), (0, 1, 0)), ((1, 0, 8), (0, 1, 0)), ((1, 0, 0), (0, 1, 4)), ((1, 0, 8), (0, 1, 4))],
        b=[((0, 1, 0), (1, 0, 0)), ((0, 1, 4), (1, 0, 0))],
    ),
    # a0..a3, b0 and b1: two in each register
    ("m16n8k8", "f16"): Fragments(
        8,
        2,
        a=[((1, 0, 0), (0, 2, 0)), ((1, 0, 0), (0, 2, 1)), ((1, 0, 8), (0, 2, 0)), ((1, 0, 8), (0, 2, 1))],
        b=[((0, 2, 0), (1, 0, 0)), ((0, 2, 1), (1, 0, 0))],
    ),
    # a0..a7, b0..b3: two in each register
    ("m16n8k16", "f16"): Fragments(
        16,
        2,
        a=[
            ((1, 0, 0), (0, 2, 0)),
            ((1, 0, 0), (0, 2, 1)),
            ((1, 0, 8), (0, 2, 0)),
            ((1, 0, 8), (0, 2, 1)),
            ((1, 0, 0), (0, 2, 8)),
            ((1, 0, 0), (0, 2, 9)),
            ((1, 0, 8), (0, 2, 8)),
            ((1, 0, 8), (0, 2, 9)),
        ],
        b=[((0, 2, 0), (1, 0, 0)), ((0, 2, 1), (1, 0, 0)), ((0, 2, 8), (1, 0, 0)), ((0, 2, 9), (1, 0, 0))],
    ),
}
TABLES["m16n8k8", "bf16"] = TABLES["m16n8k8", "f16"]
TABLES["m16n8k16", "bf16"] = TABLES["m16n8k16", "f16"]


def places(table: list[Place]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [lane, element] of a fragment's elements."""
    lane = np.arange(32)
    terms = np.stack([lane // 4, lane % 4, np.ones_like(lane)], axis=1)
    rows, columns = np.array(table).transpose(1, 2, 0)
    return terms @ rows, terms @ columns


PLACES = {key: (places(table.a), places(table.b)) for key, table in TABLES.items()}
PLACES_OF_SUMS = places(ACCUMULATOR)


def elements(registers: list[np.ndarray], kind: str) -> np.ndarray:
    """The values [lane, element] of 32-bit registers, as float64."""
    words = np.stack(registers, axis=1)
    if kind == "tf32":  # the lowest 13 bits are ignored
        return (words & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    halves = words.view(np.uint16)
    if kind == "f16":
        return halves.view(np.float16).astype(np.float64)
    return (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def multiply(shape: str, kind: str, a: list[np.ndarray], b: list[np.ndarray], c: list[np.ndarray]) -> list[np.ndarray]:
    """The registers of D = A B + C for whole warps; sums are exact and rounded once, which is not so on a device."""
    table, (place_a, place_b) = TABLES[shape, kind], PLACES[shape, kind]
    assert len(a) * table.per_register == len(table.a), f"{len(a)} registers of A"
    assert len(b) * table.per_register == len(table.b), f"{len(b)} registers of B"
    warps = len(a[0]) // 32

    def matrix(
        registers: list[np.ndarray], rows: int, columns: int, place: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        whole = np.empty((warps, rows, columns))
        whole[:, place[0], place[1]] = elements(registers, kind).reshape(warps, 32, -1)
        return whole

    sums = np.empty((warps, 16, 8))
    sums[:, PLACES_OF_SUMS[0], PLACES_OF_SUMS[1]] = np.stack(c, axis=1).reshape(warps, 32, 4)
    sums += matrix(a, 16, table.depth, place_a) @ matrix(b, table.depth, 8, place_b)
    flat = sums[:, PLACES_OF_SUMS[0], PLACES_OF_SUMS[1]].reshape(warps * 32, 4).astype(np.float32)
    return [flat[:, i].copy() for i in range(4)]
