"""Memory of a step that repeats: every evaluation after the first places its maps at the same offsets of one block.

A fresh allocation is slow, since the system clears and maps its pages at the first access. The first evaluation
therefore records the lifetime of each map. Later ones place the maps in one block, in which maps share memory if they
are never alive at the same time.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnst import process

ALIGNMENT = 4096


@dataclass
class Span:
    """One map: its size in bytes, and the numbers of the first and last map during whose allocation it is alive."""

    size: int
    first: int
    last: float = math.inf

    def overlaps(self, other: Span) -> bool:
        """Whether both are alive at some time."""
        return self.first <= other.last and other.first <= self.last


class Arena:
    """Allocates maps for evaluations that allocate and release the same maps in the same order.

    One evaluation runs at a time. Each kind of evaluation has a layout of its own in the same block. A map must not be
    used after its evaluation, since the next one overwrites it.
    """

    def __init__(self) -> None:
        self._layouts: dict[Hashable, ArenaLayout] = {}
        self._layout: ArenaLayout | None = None
        self._spans: list[Span] = []
        self._block: Tensor | None = None
        self._next = 0

    @contextmanager
    def evaluation(self, kind: Hashable = None) -> Iterator[None]:
        """A context for one evaluation. The first of its kind that succeeds is recorded."""
        self._layout, self._spans, self._next = self._layouts.get(kind), [], 0
        if self._layout is None:
            self._block = None  # the maps of this evaluation are allocated one by one
            yield
            self._layouts[kind] = ArenaLayout(self._spans)
            return
        size = self._layout.size
        if self._block is None or self._block.numel() < size:
            self._block = None
            process.release_memory()  # the memory of the recorded evaluation
            largest = max(layout.size for layout in self._layouts.values())
            self._block = torch.empty(largest, dtype=torch.uint8, device="cpu")
        yield

    def release(self) -> None:
        """Release the block until the next evaluation."""
        self._block = None

    def empty(self, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """An uninitialized map ``[1, channels, height, width]`` on the CPU, channels_last."""
        size = channels * height * width * dtype.itemsize
        if size == 0:
            return torch.empty((1, height, width, channels), dtype=dtype, device="cpu").permute(0, 3, 1, 2)
        number, self._next = self._next, self._next + 1
        if self._layout is None:
            flat = self._record(size, number)
        else:
            assert self._layout.spans[number].size == size, "an evaluation allocates other maps than the first one"
            assert self._block is not None
            offset = self._layout.offsets[number]
            flat = self._block[offset : offset + size]
        return flat.view(dtype).view(1, height, width, channels).permute(0, 3, 1, 2)

    def _record(self, size: int, number: int) -> Tensor:
        """Memory of its own for a map whose lifetime is recorded."""
        span = Span(size, number)
        self._spans.append(span)
        # All views of the map keep this array alive, so that its finalizer marks the end of the last of them.
        memory = torch.empty(size, dtype=torch.uint8, device="cpu").numpy()[:]
        weakref.finalize(memory, self._end, span)
        return torch.from_numpy(memory)

    def _end(self, span: Span) -> None:
        if self._layout is None:  # a map that outlives its evaluation does not change the layout
            span.last = self._next - 1


class ArenaLayout:
    """The offset of each map of an evaluation, and the bytes that all of them take."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans
        self.offsets, self.size = arrange(spans)


def arrange(spans: list[Span]) -> tuple[list[int], int]:
    """An offset for each span, such that spans alive at the same time do not overlap, and the size of the block.

    First fit, largest span first: each takes the lowest offset that is free during its whole lifetime.
    """
    placed: list[tuple[int, Span]] = []
    offsets = [0] * len(spans)
    for i in sorted(range(len(spans)), key=lambda i: -spans[i].size):
        span, offset = spans[i], 0
        occupied = [(start, other.size) for start, other in placed if other.overlaps(span)]
        for start, size in sorted(occupied):
            if offset + span.size <= start:
                break
            offset = max(offset, start + -(-size // ALIGNMENT) * ALIGNMENT)
        offsets[i] = offset
        placed.append((offset, span))
    return offsets, max((offset + span.size for offset, span in placed), default=0)
