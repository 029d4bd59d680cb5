"""L-BFGS for images: one evaluation and one update a step, no line search, history in one buffer.

Nocedal and Wright, "Numerical Optimization", 2006, algorithm 7.4 (two-loop recursion), with the initial Hessian scaled
by s.y / y.y (eq. 7.20). As in neural-style, a step has the full length of the direction times the learning rate. An
update takes as long as memory takes to hand over the history twice (docs/experiments/lbfgs.md). Where the history is
kept in bfloat16, a vector at a time is widened, and all arithmetic is in the image's precision.

The first step has no curvature to go by. Customarily it is scaled to a total change of 1, spread over a million pixels;
the curvature taken from so small a change says little of the way ahead, and with bfloat16 features it is lost in
rounding. Here the mean change of a pixel in the first step is ``FIRST_CHANGE`` grey levels of 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FIRST_CHANGE = 4.0
# No step changes a pixel by more than this on average: the losses are of fourth order, and a direction taken where they
# are nearly straight can be a thousand times too long.
MOST_CHANGE = 8.0
# A pair (s, y) whose curvature is not clearly positive is left out.
LEAST_CURVATURE = 1e-10


class LBFGS:
    """State of one minimisation.

    Args:
        image: the tensor that :meth:`step` will update in place; it fixes size, dtype and device of the buffers.
        learning_rate: factor of each step.
        history: number of pairs kept; memory is ``2 * history`` images of ``dtype`` and three of the image's.
        dtype: of the pairs kept; None: the image's.
    """

    def __init__(
        self, image: Tensor, learning_rate: float = 1.0, history: int = 20, dtype: torch.dtype | None = None
    ) -> None:
        self.learning_rate = learning_rate
        # s and y: how the image changed and how the gradient did. Not zeroed: rows never written take no memory.
        self.pairs = image.new_empty(history, 2, image.numel(), dtype=dtype or image.dtype)
        self.wide = image.new_empty(image.numel() if self.pairs.dtype != image.dtype else 0)
        self.curvatures: list[float] = [0.0] * history  # s.y
        self.count = 0  # pairs taken so far; the newest is at (count - 1) % history
        self.scale = 1.0
        self.gradient: Tensor | None = None
        self.direction: Tensor | None = None

    @property
    def used(self) -> list[int]:
        """The places of the pairs that count, newest first."""
        history = len(self.curvatures)
        written = [i % history for i in range(self.count - 1, max(self.count - history, 0) - 1, -1)]
        return [slot for slot in written if self.curvatures[slot] > 0]

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes, the tensors not copied: of the pairs those that count."""
        known = {"gradient": self.gradient, "direction": self.direction}
        return {
            **{f"pair{slot}": self.pairs[slot] for slot in self.used},
            **{name: tensor for name, tensor in known.items() if tensor is not None},
            "curvatures": self.curvatures,
            "count": self.count,
            "scale": self.scale,
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on from a ``state``, if ``memory`` holds one."""
        if "curvatures" not in memory:
            return
        self.curvatures, self.count, self.scale = list(memory["curvatures"]), memory["count"], memory["scale"]
        for slot in self.used:
            self.pairs[slot].copy_(memory[f"pair{slot}"])
        if "gradient" in memory:
            self.gradient = memory["gradient"].to(self.pairs.device, copy=True)
            self.direction = memory["direction"].to(self.pairs.device, copy=True)

    @torch.no_grad()
    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given the gradient there."""
        flat = gradient.reshape(-1)
        if self.gradient is None or self.direction is None:
            self.gradient, self.direction = flat.clone(), flat.neg()
            size = flat.abs().mean()
            factor = torch.where(size > 0, self.learning_rate * FIRST_CHANGE / size, 0.0)
        else:
            self._learn(flat, self.gradient, self.direction)
            self.gradient.copy_(flat)
            self._turn(flat, self.direction)
            size = self.direction.abs().mean()
            factor = (MOST_CHANGE / size).clamp_(max=self.learning_rate)
        image.view(-1).add_(self.direction.mul_(factor))

    def _learn(self, flat: Tensor, gradient: Tensor, change: Tensor) -> None:
        """Take in the last change of the image and what it did to the gradient."""
        slot = self.count % len(self.curvatures)
        self.pairs[slot, 0].copy_(change)
        self.pairs[slot, 1].copy_(gradient.neg_().add_(flat))
        # Of the pair as it is kept: a curvature that rounding has turned around would point uphill.
        bend = gradient.copy_(self.pairs[slot, 1])
        # The one wait for the device in a step: whether a pair counts decides what runs next.
        curvature, square = torch.stack((self._vector(slot, 0).dot(bend), bend.dot(bend))).tolist()
        if curvature > LEAST_CURVATURE * square and square > 0:
            self.curvatures[slot] = curvature
            self.scale = curvature / square
            self.count += 1
        elif self.count >= len(self.curvatures):
            # The pair that stood here is overwritten and the new one is no good: its place counts nothing.
            self.curvatures[slot] = 0.0

    def _turn(self, flat: Tensor, direction: Tensor) -> None:
        """The two-loop recursion: direction = -H gradient."""
        torch.neg(flat, out=direction)
        used, taken = self.used, {}
        for slot in used:
            taken[slot] = self._vector(slot, 0).dot(direction).div_(self.curvatures[slot])
            direction.addcmul_(self._vector(slot, 1), taken[slot], value=-1)
        direction.mul_(self.scale)
        for slot in reversed(used):
            along = self._vector(slot, 1).dot(direction).div_(self.curvatures[slot])
            direction.addcmul_(self._vector(slot, 0), taken[slot].sub_(along))

    def _vector(self, slot: int, which: int) -> Tensor:
        """A pair's s or y in the image's precision, until the next is asked for."""
        kept = self.pairs[slot, which]
        return kept if kept.dtype == self.wide.dtype else self.wide.copy_(kept)
