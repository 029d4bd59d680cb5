"""L-BFGS on inner products alone: tried, measured by optimizers.py, and not taken (docs/experiments/lbfgs.md).

The two-loop recursion runs in float64 on small matrices (Byrd, Nocedal, Schnabel, "Representations of quasi-Newton
matrices", 1994, theorem 2.3). With R the upper triangle of S^T Y, D its diagonal and c = s.y / y.y of the newest pair,

    direction = -(c g + S q - c Y p),    R p = S^T g,    R^T q = D p + c (Y^T Y p - Y^T g).

All the products follow from one pass over the history, with the gradient, since the newest y is the difference of two
gradients; a second pass adds up the direction.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastnst.lbfgs import FIRST_CHANGE, LEAST_CURVATURE, MOST_CHANGE

# The history is read in pieces of this many positions: products are exact to float32 within one and added in float64
# beyond.
PIECE = 2**14


class Compact:
    """State of one minimisation.

    Args:
        image: the tensor that :meth:`step` will update in place; it fixes size, dtype and device of the buffers.
        learning_rate: factor of each step.
        history: number of pairs kept; memory is ``2 * history`` images of ``dtype`` and two of the image's.
        dtype: of the pairs kept; None: the image's.
    """

    def __init__(
        self, image: Tensor, learning_rate: float = 1.0, history: int = 20, dtype: torch.dtype | None = None
    ) -> None:
        self.learning_rate = learning_rate
        self.history = history
        # s and y: how the image changed and how the gradient did. Not zeroed: rows never written take no memory.
        self.pairs = image.new_empty(history, 2, image.numel(), dtype=dtype or image.dtype)
        wide = self.pairs.dtype == image.dtype
        self.piece = image.new_empty(0 if wide else 2 * history, min(PIECE, image.numel()))  # to widen a piece in
        # Of two slots: s.y where the first is no newer than the second, and y.y. Of a slot: s.g and y.g.
        self.bends = torch.zeros(2, history, history, dtype=torch.float64)
        self.slopes = torch.zeros(2, history, dtype=torch.float64)
        self.used: list[int] = []  # slots that count, oldest first
        self.count = 0  # pairs taken so far; the next goes to count % history
        self.scale = 1.0
        self.gradient: Tensor | None = None
        self.direction: Tensor | None = None

    @torch.no_grad()
    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given the gradient there."""
        flat = gradient.reshape(-1)
        if self.gradient is None or self.direction is None:
            self.gradient, self.direction = flat.clone(), flat.neg()
            size = _mean_size(self.direction, image)
            factor = torch.where(size > 0, self.learning_rate * FIRST_CHANGE / size, 0.0)
        else:
            self._turn(flat, self._learn(flat, self.gradient, self.direction), self.direction)
            size = _mean_size(self.direction, image)
            factor = (MOST_CHANGE / size).clamp_(max=self.learning_rate)
        image.view(-1).add_(self.direction.mul_(factor))

    def _learn(self, flat: Tensor, gradient: Tensor, change: Tensor) -> float:
        """Take in the last change of the image and what it did to the gradient; return g.g."""
        slot = self.count % self.history
        pair = self.pairs[slot]
        bend = gradient.neg_().add_(flat)
        pair[0].copy_(change)
        pair[1].copy_(bend)
        rows = self.pairs[: self.count + 1].flatten(0, 1)
        parts = (self._products(rows, flat), self._products(pair, bend), self._products(flat[None], flat))
        gradient.copy_(flat)
        # The one wait for the device in a step: whether a pair counts decides what comes next.
        found = torch.cat(parts, dim=1).cpu().double().sum(dim=0)
        slopes = found[:-3].view(-1, 2).T
        filled = slopes.shape[1]
        by_bend = slopes - self.slopes[:, :filled]  # the products of all s and y with the new y
        by_bend[:, slot] = found[-3:-1]
        self.slopes[:, :filled] = slopes
        curvature, square = by_bend[:, slot].tolist()
        # Where the new pair is no good, the one it has overwritten is gone all the same.
        self.used = [other for other in self.used if other != slot]
        if curvature > LEAST_CURVATURE * square and square > 0:
            self.bends[:, :filled, slot] = by_bend
            self.bends[1, slot, :filled] = by_bend[1]
            self.scale = curvature / square
            self.used.append(slot)
            self.count += 1
        return found[-1].item()

    def _turn(self, flat: Tensor, square: float, direction: Tensor) -> None:
        """direction = -H gradient, given g.g."""
        used = torch.tensor(self.used, dtype=torch.int64)
        curvatures, squares = self.bends[:, used][:, :, used]
        along_s, along_y = self.slopes[:, used]
        p = _solve(curvatures, along_s, upper=True)
        q = _solve(curvatures.T, curvatures.diagonal() * p + self.scale * (squares @ p - along_y), upper=False)
        fall = self.scale * square + along_s.dot(q).item() - self.scale * along_y.dot(p).item()
        torch.mul(flat, -self.scale, out=direction)
        if fall > 0:
            factors = torch.zeros(max(self.used, default=-1) + 1, 2, dtype=torch.float64)
            factors[used] = torch.stack((-q, self.scale * p), dim=1)
            self._add(direction, factors.flatten().to(flat.dtype).to(flat.device))
        else:  # what rounding has left of the sums is no positive definite matrix
            self.used = []

    def _products(self, rows: Tensor, vector: Tensor) -> Tensor:
        """``rows @ vector`` in parts that are to be added: [pieces, rows]."""
        return torch.stack([piece.mv(part) for piece, part in self._pieces(rows, vector)])

    def _add(self, vector: Tensor, factors: Tensor) -> None:
        """Add to ``vector`` the first rows of the history, s and y in turn, times ``factors``."""
        rows = self.pairs.flatten(0, 1)[: len(factors)]
        for piece, part in self._pieces(rows, vector):
            part.addmv_(piece.T, factors)

    def _pieces(self, rows: Tensor, vector: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The same positions of rows and vector, ``PIECE`` at a time, in the vector's precision."""
        for piece, part in zip(rows.split(PIECE, dim=1), vector.split(PIECE), strict=True):
            if piece.dtype != part.dtype:
                piece = self.piece[: len(piece), : len(part)].copy_(piece)
            yield piece, part


def _solve(matrix: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    """Solve a triangular system; what stands in the other triangle is not looked at."""
    solution: Tensor = torch.linalg.solve_triangular(matrix, right[:, None], upper=upper)
    return solution[:, 0]


def _mean_size(change: Tensor, image: Tensor) -> Tensor:
    """The mean absolute change of a pixel. Row by row: a sum of all at once would depend on the number of threads."""
    return change.view(image.shape).abs().mean(dim=-1).mean()
