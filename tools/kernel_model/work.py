"""How often each loop of a kernel runs, and what it moves: one function per kernel, in `FAMILIES`.

Only this depends on what the kernels do. Loops are recognized by what they contain (tensor-core instructions, copies,
loads, stores). Trips follow from the plan and the shape; tests compare the tensor-core instructions that result with
those that the emulator counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tools.kernel_model.cases import Case, Launch
from tools.kernel_model.facts import Kernel, Loop
from tools.kernel_model.parts import Kind, Pass, Role, Work, cooperative

UNIT = 64
GROUP = 16  # of gram_mma: partial matrices that one block adds
L1_MATRIX = 128 * 128 * 4  # bytes of a matrix that stays in L1


def loops_of(kernel: Kernel, chosen: Callable[[Loop], bool]) -> list[int]:
    """Indices of the loops that every block runs and ``chosen`` accepts."""
    return [n for n, loop in enumerate(kernel.loops) if not loop.tail and chosen(loop)]


def main_loops(kernel: Kernel) -> list[int]:
    """Innermost loops with tensor-core instructions, and ways through them, the fewest instructions first."""
    found = loops_of(kernel, lambda loop: loop.inner and loop.products > 0)
    return sorted(found, key=lambda n: kernel.loops[n].products)


def around(kernel: Kernel, loop: int) -> int | None:
    """The loop around another."""
    parent = kernel.loops[loop].parent
    return next((n for n, other in enumerate(kernel.loops) if other.number == parent), None)


def within(kernel: Kernel, loop: int, trips: float, inner: Pass) -> Pass:
    """``trips`` iterations of the loop around ``loop``, each with ``inner``; ``inner`` alone if there is none."""
    outer = around(kernel, loop)
    if outer is None:
        return Pass(inner.loop, trips * inner.trips, inner.source)
    return Pass(outer, trips, "memory", (inner,))


def tail_loads(kernel: Kernel, width: str) -> int:
    """The most independent loads of an innermost loop that only the last block runs, by the width of its loads."""
    tails = [loop for loop in kernel.loops if loop.tail and loop.inner and not loop.stores]
    return max((loop.independent for loop in tails if width in loop.loads), default=1)


def gram_mma(case: Case, launch: Launch, kernel: Kernel) -> Work:
    """Each warp reads its chunks by itself; the last block of a tile adds up to 16 slots, then the groups of slots."""
    alone = case.channels <= UNIT
    pairs = 1 if alone else -(-case.channels // (2 * UNIT))
    splits = launch.blocks // (1 if alone else pairs * pairs)
    chunk = 64 // case.size
    trips = math.ceil(math.ceil(case.positions / chunk) / splits / (launch.warps if alone else 1))
    half, *_, diagonal = main_loops(kernel)
    turns = loops_of(kernel, lambda loop: loop.inner and loop.wavefronts > 100)
    if alone:
        role = Role(launch.warps, (Pass(diagonal, trips), *(Pass(n, launch.warps) for n in turns)))
        kinds = [Kind(launch.blocks, (role,))]
    else:
        both = (Role(launch.warps / 2, (Pass(diagonal, trips),)), Role(launch.warps / 2, (Pass(half, trips),)))
        kinds = [Kind(pairs * splits, both)]
        if pairs > 1:
            kinds.append(Kind(pairs * (pairs - 1) * splits, (Role(launch.warps, (Pass(half, trips),)),)))
    in_flight, groups = tail_loads(kernel, "32"), math.ceil(splits / GROUP)
    units, elements = (1 if alone else 3), UNIT * UNIT // launch.threads
    added = math.ceil(min(splits, GROUP) / in_flight) + (math.ceil(groups / in_flight) if groups > 1 else 0)
    rounds = units * elements * added + (units if alone else units + 1) * elements  # and one for each target
    channels_read = UNIT if alone else 2 * UNIT * pairs + 3 * UNIT * pairs * (pairs - 1)
    l2 = channels_read * case.positions * case.size + launch.blocks * units * UNIT * UNIT * 4
    return Work(kinds, memory=case.features, l2=l2, rounds=rounds, tail_loads=in_flight)


def gram_tiles(case: Case, launch: Launch, kernel: Kernel) -> Work:
    """Blocks copy panels of 64 channels to shared memory in stages of eight, and write partial tiles."""
    *alone, half, triangle = main_loops(kernel)
    chunk, at_once = 64 // case.size, 2 if alone else 1  # half precision multiplies two chunks at once, in other ways
    rows = 1 if case.channels <= UNIT else -(-case.channels // (2 * UNIT))
    splits, on_diagonal = case.plan["splits"], case.plan["diagonal_splits"]

    def stages(chunks: int, parts: int) -> int:
        return math.ceil(math.ceil(case.positions / (chunks * chunk)) / parts)

    def role(warps: float, loop: int, trips: int, chunks: int) -> Role:
        return Role(warps, (within(kernel, loop, trips, Pass(loop, chunks)),))

    if case.channels <= UNIT:
        kinds = [Kind(launch.blocks, (role(launch.warps, [*alone, triangle][0], stages(8, splits), 1),))]
    else:
        trips = stages(4, on_diagonal)
        both = tuple(role(launch.warps / 2, loop, trips, 2 // at_once) for loop in (triangle, half))
        kinds = [Kind(rows * on_diagonal, both)]
        if rows > 1:
            work = role(launch.warps, half, stages(2, splits), 2 // at_once)
            kinds.append(Kind(rows * (rows - 1) // 2 * splits, (work,)))
    off = rows * (rows - 1) // 2
    read = case.features * (1 if case.channels <= UNIT else (2 * rows + 4 * off) / (2 * rows))
    return Work(kinds, memory=case.features, l2=read + 4.0 * case.buffers["partial"])


def gram_finish(case: Case, launch: Launch, kernel: Kernel) -> Work:
    """Each warp adds the partial results of a product of 16 x 8; the last block adds the losses."""
    partial, square = 4.0 * case.buffers["partial"], 4.0 * case.channels**2
    work = cooperative(launch, kernel, partial, loops_of(kernel, lambda loop: "128" in loop.loads), "L2")
    work.memory, work.l2 = square, partial + 2 * square
    work.tail_loads = tail_loads(kernel, "64")
    work.rounds = math.ceil(launch.blocks / launch.threads / work.tail_loads)
    return work


def gram_products(case: Case) -> float:
    """Tensor-core instructions of the lower triangle, in products of 16 x 16 as two of 16 x 8."""
    units = -(-case.channels // UNIT)
    squares = units * 10 + units * (units - 1) // 2 * 16
    return squares * 2 * math.ceil(case.positions * case.size / 32) * case.terms


def backward_products(case: Case) -> float:
    """Tensor-core instructions of M F: with M in tf32, or in two parts of bfloat16."""
    return case.channels / 16 * case.positions / 8 * case.channels / 8 * case.terms


def needed_products(case: Case) -> float:
    """Tensor-core instructions of an op."""
    return gram_products(case) if case.op == "style_loss" else backward_products(case)


def read_again(case: Case) -> float:
    """Bytes of the incoming gradient."""
    return case.features if case.op == "layer_backward_" else 0.0


def backward_strips(case: Case, launch: Launch, kernel: Kernel) -> Work:
    """A block copies its strip, then its warps take jobs, each a loop over channels and an epilogue."""
    main = main_loops(kernel)[-1]
    trips = case.channels / 16
    jobs = math.ceil(backward_products(case) / launch.blocks / launch.warps / trips / kernel.loops[main].products)
    matrix = 4.0 * case.channels**2
    inner = Pass(main, trips, "L1" if matrix <= L1_MATRIX else "L2")
    strip = launch.shared / launch.threads
    filled = [
        Pass(n, math.ceil(strip / kernel.loops[n].bytes("copies")))
        for n in loops_of(kernel, lambda loop: bool(loop.copies))
    ]
    role = Role(launch.warps, (*filled, within(kernel, main, jobs, inner)))
    moved = 2 * case.features + read_again(case)
    return Work([Kind(launch.blocks, (role,))], memory=moved, l2=moved + launch.blocks * matrix)


def backward_tiles(case: Case, launch: Launch, kernel: Kernel) -> Work:
    """A product of M and F in tiles: the loop has a stage of copies and of products, the rest is the epilogue."""
    main = main_loops(kernel)[-1]
    stages = backward_products(case) / launch.blocks / launch.warps / kernel.loops[main].products
    role = Role(launch.warps, (Pass(main, math.ceil(stages)),))
    copied = launch.blocks * math.ceil(stages) * launch.shared / 4  # a stage fills one of four slots
    again = read_again(case)
    return Work([Kind(launch.blocks, (role,))], memory=2 * case.features + again, l2=copied + case.features + again)


def symmetrize(case: Case, launch: Launch, kernel: Kernel) -> Work:
    """Two reads and a write of the matrix, from L2."""
    square = 4.0 * case.channels**2
    work = cooperative(launch, kernel, square, loops_of(kernel, lambda loop: bool(loop.loads)), "L2")
    work.l2 = 3 * square
    return work


FAMILIES: dict[str, Callable[[Case, Launch, Kernel], Work]] = {
    "gram_mma": gram_mma,
    "gram_tiles": gram_tiles,
    "gram_finish": gram_finish,
    "backward_strips": backward_strips,
    "backward_tiles": backward_tiles,
    "symmetrize": symmetrize,
}
