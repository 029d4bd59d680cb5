"""Memory of a step that repeats: the maps of one evaluation lie at the same places of one block in every other.

A fresh map is slow: the system hands out its memory page by page, cleared, at the first touch.
The first evaluation therefore notes when each map comes and goes; from the second on all of them have their places in
one block, planned so that maps lie in each other's memory where they are not alive at the same time.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Hashable, Iterator
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

    One evaluation at a time. Those of another kind have a plan of their own, in the same block. A map must not be used
    after the evaluation: the next one writes there.
    """

    def __init__(self) -> None:
        self._plans: dict[Hashable, Plan] = {}
        self._plan: Plan | None = None
        self._spans: list[Span] = []
        self._block: Tensor | None = None
        self._next = 0

    @contextmanager
    def evaluation(self, kind: Hashable = None) -> Iterator[None]:
        """What :meth:`empty` hands out inside belongs to one evaluation; one that fails is not planned for."""
        self._plan, self._spans, self._next = self._plans.get(kind), [], 0
        if self._plan is None:
            self._block = None  # not beside maps that have no places yet
            yield
            self._plans[kind] = Plan(self._spans)
            return
        size = self._plan.size
        if self._block is None or self._block.numel() < size:
            self._block = None
            heap.return_unused()  # where the maps of the first lay
            self._block = torch.empty(max(plan.size for plan in self._plans.values()), dtype=torch.uint8, device="cpu")
        yield

    def release(self) -> None:
        """Give the block back until the next evaluation."""
        self._block = None

    def empty(self, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """A map ``[1, channels, height, width]`` on the CPU, channels_last, with anything in it."""
        size = channels * height * width * dtype.itemsize
        if size == 0:
            return torch.empty((1, height, width, channels), dtype=dtype, device="cpu").permute(0, 3, 1, 2)
        number, self._next = self._next, self._next + 1
        if self._plan is None:
            span = Span(size, number)
            self._spans.append(span)
            memory = torch.empty(size, dtype=torch.uint8, device="cpu").numpy()[
                :
            ]  # which all views of the map hold on to
            weakref.finalize(memory, self._gone, span)
            flat = torch.from_numpy(memory)
        else:
            assert self._plan.spans[number].size == size, "an evaluation asked for other maps than the first"
            assert self._block is not None
            offset = self._plan.offsets[number]
            flat = self._block[offset : offset + size]
        return flat.view(dtype).view(1, height, width, channels).permute(0, 3, 1, 2)

    def _gone(self, span: Span) -> None:
        if self._plan is None:  # what is planned stands
            span.last = self._next - 1


class Plan:
    """Places for the maps of an evaluation, and how many bytes all take."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans
        self.offsets, self.size = plan(spans)


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
