"""L-BFGS for one image: one evaluation and one update per step, no line search, the history in one buffer.

Nocedal and Wright, "Numerical Optimization", 2006, algorithm 7.4 (two-loop recursion). The initial inverse Hessian is a
scale between s.y / y.y (eq. 7.20), which is short, and s.s / s.y, which is long: the scales of Barzilai and Borwein,
"Two-point step size gradient methods", 1988. As in neural-style, a step has the full length of the direction times the
learning rate. An update takes as long as reading the history twice (docs/experiments/lbfgs.md). All arithmetic uses
the precision of the image, also for a history in bfloat16.

The first step has no curvature to use. Implementations commonly scale it to a total change of 1, spread over a million
pixels; the curvature measured from so small a change is a poor estimate, and with bfloat16 features it is lost in
rounding. Here the mean change of a pixel in the first step is ``FIRST_CHANGE`` gray levels of 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastnst.config.ranges import FIRST_CHANGE

# No step changes a pixel by more than this on average: the losses are of fourth order, and where they are nearly linear
# the direction can be a thousand times too long.
MOST_CHANGE = 8.0
# The initial scale is (s.y / y.y)^(1 - LONG) (s.s / s.y)^LONG. docs/experiments/time_to_loss.md compares.
LONG = 1 / 3
ROW = 4096  # values that are summed by one thread
# A pair (s, y) is used only if its curvature s.y exceeds this times y.y.
LEAST_CURVATURE = 1e-10


class LBFGS:
    """L-BFGS for one image.

    Args:
        image: the tensor that :meth:`step` will update in place; it gives shape, dtype and device of the buffers.
        learning_rate: factor of each step.
        history: number of pairs kept; memory is ``2 * history`` images of ``dtype`` and three of the image's.
        dtype: of the pairs kept; None: the image's.
        first_change: the mean change of a pixel by the first step, times ``learning_rate``.
        share: of the pixels that the loss depends on; the mean changes are those of these pixels.
    """

    def __init__(
        self,
        image: Tensor,
        learning_rate: float = 1.0,
        history: int = 20,
        dtype: torch.dtype | None = None,
        share: float = 1.0,
        *,
        first_change: float = FIRST_CHANGE,
    ) -> None:
        self.learning_rate, self.first_change, self.share = learning_rate, first_change, share
        # s and y: the changes of the image and of the gradient. Not zeroed: rows never written take no memory.
        self.pairs = image.new_empty(history, 2, image.numel(), dtype=dtype or image.dtype)
        self.curvatures: list[float] = [0.0] * history  # s.y
        self.count = 0  # pairs stored so far; the newest is at (count - 1) % history
        self.scale = 1.0
        self.gradient: Tensor | None = None
        self.direction: Tensor | None = None

    @property
    def used(self) -> list[int]:
        """The slots of the pairs in use, newest first."""
        history = len(self.curvatures)
        written = [i % history for i in range(self.count - 1, max(self.count - history, 0) - 1, -1)]
        return [slot for slot in written if self.curvatures[slot] > 0]

    def state_dict(self) -> dict[str, Any]:
        """The state, tensors not copied; of the history only the pairs in use."""
        known = {"gradient": self.gradient, "direction": self.direction}
        return {
            **{f"pair{slot}": self.pairs[slot] for slot in self.used},
            **{name: tensor for name, tensor in known.items() if tensor is not None},
            "curvatures": self.curvatures,
            "count": self.count,
            "scale": self.scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a state; an empty one changes nothing."""
        if "curvatures" not in state:
            return
        self.curvatures, self.count, self.scale = list(state["curvatures"]), state["count"], state["scale"]
        for slot in self.used:
            self.pairs[slot].copy_(state[f"pair{slot}"])
        if "gradient" in state:
            self.gradient = state["gradient"].to(self.pairs.device, copy=True)
            self.direction = state["direction"].to(self.pairs.device, copy=True)

    @torch.no_grad()
    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given its gradient."""
        flat = gradient.reshape(-1)
        if self.gradient is None or self.direction is None:
            self.gradient, self.direction = flat.clone(), flat.neg()
            size = _mean_magnitude(flat)
            first = self.learning_rate * self.first_change * self.share
            factor = torch.where(size > 0, first / size, 0.0)
        else:
            self._store_pair(flat, self.gradient, self.direction)
            self.gradient.copy_(flat)
            self._compute_direction(flat, self.direction)
            size = _mean_magnitude(self.direction)
            factor = (MOST_CHANGE * self.share / size).clamp_(max=self.learning_rate)
        image.view(-1).add_(self.direction.mul_(factor))

    def _store_pair(self, flat: Tensor, gradient: Tensor, change: Tensor) -> None:
        """Store the last change of the image and the change of the gradient that it caused."""
        slot = self.count % len(self.curvatures)
        self.pairs[slot, 0].copy_(change)
        self.pairs[slot, 1].copy_(gradient.neg_().add_(flat))
        # Computed from the pair as it is stored: rounding must not turn the sign of the curvature.
        y = gradient.copy_(self.pairs[slot, 1])
        # The only synchronization with the device in a step: the host decides whether the pair is used.
        s = change.copy_(self.pairs[slot, 0])
        curvature, square, length = torch.stack((_dot(s, y), _dot(y, y), _dot(s, s))).tolist()
        if curvature > LEAST_CURVATURE * square and square > 0:
            self.curvatures[slot] = curvature
            self.scale = curvature / square * (length / curvature * square / curvature) ** LONG
            self.count += 1
        elif self.count >= len(self.curvatures):
            # The old pair of this slot is overwritten and the new one is not used.
            self.curvatures[slot] = 0.0

    def _compute_direction(self, flat: Tensor, direction: Tensor) -> None:
        """Direction = -H gradient."""
        torch.neg(flat, out=direction)
        used = self.used
        slots = torch.tensor(used, dtype=torch.int64, device="cpu")
        curvatures = torch.tensor([self.curvatures[slot] for slot in used], dtype=torch.float64, device="cpu")
        torch.ops.fastnst.lbfgs_direction_(direction, self.pairs, slots, curvatures, self.scale)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """The product of two vectors, in float64 on the CPU; the same bits for any number of threads."""
    found: Tensor = torch.ops.fastnst.dot(x, y) if x.device.type == "cpu" else x.dot(y)
    return found


def _mean_magnitude(x: Tensor) -> Tensor:
    """The mean magnitude ``[]`` of a vector; rows that one thread sums, so that bits do not depend on their number."""
    whole = x.numel() // ROW * ROW
    rows = x[:whole].view(-1, ROW).abs().sum(1).sum()
    return (rows + x[whole:].abs().sum()) / x.numel()
