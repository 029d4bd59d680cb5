"""What a style loss needs to know of a layer, added up over parts of it: the same as of the whole layer at once."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst import ops
from fastnst.ops.reference import accumulate_dtype
from fastnst.styles import MomentLoss, Pull, StyleLoss, Target, measure, pull
from fastnst.styles.base import moments, pull_moments
from fastnst.taps import Slope, StyleTerm


class Sums:
    """Gram matrix, or mean and second moment, added in float64; for a loss of the features themselves, these.

    Args:
        loss: a style loss; None for the Gram matrix.
        scale: the Gram matrix's factor.
        positions: of the whole layer.
        weight: of the whole layer's positions ``[1, h, w]``, of sum 1; None weighs all alike.
    """

    def __init__(self, loss: StyleLoss | None, scale: float, positions: int, weight: Tensor | None = None) -> None:
        self.loss, self.scale, self.positions, self.weight = loss, scale, positions, weight
        self.added: list[Tensor] = []
        self.parts: list[Tensor] = []
        self._dtype = torch.float32

    def add(self, x: Tensor, rows: slice) -> None:
        """Take in some rows of the layer, ``[1, C, rows, w]``."""
        weight = None if self.weight is None else self.weight[:, rows]
        self._dtype = accumulate_dtype(x.dtype)
        found: tuple[Tensor, ...]
        if self.loss is None:
            found = (ops.gram(x, weight, self.scale),)
        elif isinstance(self.loss, MomentLoss):
            found = moments(x, weight, self.positions)
        else:
            self.parts.append(x.clone())
            return
        if not self.added:
            self.added = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in found]
        for total, tensor in zip(self.added, found, strict=True):
            total += tensor

    def target(self) -> Target:
        """What is kept of a style whose layer this was."""
        if self.loss is None:
            return self._known()
        if isinstance(self.loss, MomentLoss):
            with torch.no_grad():
                return self.loss.target(*self._known())
        return measure(self.loss, self._whole(), self.weight)

    def value_and_slope(self, term: StyleTerm) -> tuple[Tensor, Slope]:
        """The value and the gradient of a term of this loss and weight, at the layer this was."""
        if self.loss is None:
            residual = self._known()[0] - term.target[0]
            value = term.factor * residual.double().square().sum()
            return value, Slope(4.0 * term.factor * term.scale, Pull(matrix=residual), term.weight)
        if isinstance(self.loss, MomentLoss):
            mean, moment = self._known()
            value, found = pull_moments(
                self.loss, mean, moment, term.target, self.positions if term.weight is None else 1
            )
        else:
            value, found = pull(self.loss, self._whole(), term.target, term.weight)
        return term.factor * value, Slope(term.factor, found, term.weight)

    def _known(self) -> tuple[Tensor, ...]:
        return tuple(total.to(self._dtype) for total in self.added)

    def _whole(self) -> Tensor:
        """All rows, in the order in which they came; they are let go."""
        whole, self.parts = torch.cat(self.parts, 2), []
        return whole
