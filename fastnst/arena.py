"""Memory of a step that repeats: the maps of one evaluation lie at the same places of one block in every other.

A fresh map is slow: the system hands out its memory page by page, cleared, at the first touch.
The first evaluation therefore notes when each map comes and goes; from the second on all of them have their places in
one block, planned so that maps lie in each other's memory where they are not alive at the same time.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnst import heap

ALIGNMENT = 4096


@dataclass
class Span:
    """One map: its bytes, and from which to which map of the evaluation it is alive."""

    size: int
    first: int
    last: float = math.inf


class Arena:
    """Hands out maps to evaluations that ask for the same maps in the same order and let them go alike.

    One evaluation at a time. A map must not be used after the evaluation: the next one writes there.
    """

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._offsets: list[int] = []
        self._block: Tensor | None = None
        self._next = 0

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """What :meth:`empty` hands out inside belongs to one evaluation; one that fails is not planned for."""
        if self._spans and self._block is None:
            self._offsets, size = plan(self._spans)
            heap.return_unused()  # where the maps of the first lay
            self._block = torch.empty(size, dtype=torch.uint8)
        self._next, done = 0, False
        try:
            yield
            done = True
        finally:
            if not done and self._block is None:
                self._spans = []

    def empty(self, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """A map ``[1, channels, height, width]`` on the CPU, channels_last, with anything in it."""
        size = channels * height * width * dtype.itemsize
        number, self._next = self._next, self._next + 1
        if self._block is None:
            pixels = torch.empty((1, height, width, channels), dtype=dtype)
            span = Span(size, number)
            self._spans.append(span)
            x = pixels.permute(0, 3, 1, 2)
            weakref.finalize(x, self._gone, span)
            return x
        assert self._spans[number].size == size, "an evaluation asked for other maps than the first"
        offset = self._offsets[number]
        flat = self._block[offset : offset + size].view(dtype)
        return flat.view(1, height, width, channels).permute(0, 3, 1, 2)

    def _gone(self, span: Span) -> None:
        span.last = self._next - 1


def plan(spans: list[Span]) -> tuple[list[int], int]:
    """An offset for each span, none overlapping another that is alive at the same time, and the bytes in all.

    Largest first, each at the lowest place that is free for all its life.
    """
    placed: list[tuple[int, Span]] = []
    offsets = [0] * len(spans)
    for i in sorted(range(len(spans)), key=lambda i: -spans[i].size):
        span, at = spans[i], 0
        beside = [(o, s.size) for o, s in placed if s.first <= span.last and span.first <= s.last]
        for offset, size in sorted(beside):
            if at + span.size <= offset:
                break
            at = max(at, offset + -(-size // ALIGNMENT) * ALIGNMENT)
        offsets[i] = at
        placed.append((at, span))
    return offsets, max((offset + span.size for offset, span in placed), default=0)
