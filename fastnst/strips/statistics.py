"""The statistics of a style loss, accumulated over parts of a layer: the same as those of the whole layer."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst import ops
from fastnst.devices import wide_dtype
from fastnst.losses.style import FeatureGradient, MomentLoss, StyleLoss, Target, measure, value_and_gradient
from fastnst.losses.style.base import moments, moments_value_and_gradient
from fastnst.objective.terms import ScaledFeatureGradient, StyleTerm
from fastnst.ops.dtypes import accumulate_dtype


class StreamingStatistics:
    """The Gram matrix, or mean and second moment, summed in float64 over parts of a layer (float32 without float64).

    For a loss of the features themselves, the features are collected instead.

    Args:
        loss: a style loss; None: the Gram matrix.
        scale: the factor of the Gram matrix.
        positions: their number in the whole layer.
        weight: of the positions of the whole layer, ``[1, h, w]``, of sum 1; None: all count alike.

    Attributes:
        sums: the statistics so far.
        features: the collected features, for a loss of the features themselves.
    """

    def __init__(self, loss: StyleLoss | None, scale: float, positions: int, weight: Tensor | None = None) -> None:
        self.loss, self.scale, self.positions, self.weight = loss, scale, positions, weight
        self.sums: list[Tensor] = []
        self.features: list[Tensor] = []
        self._dtype = torch.float32

    def add(self, x: Tensor, rows: slice) -> None:
        """Add the features ``[1, C, rows, w]`` of some rows of the layer."""
        weight = None if self.weight is None else self.weight[:, rows]
        self._dtype = accumulate_dtype(x.dtype)
        found: tuple[Tensor, ...]
        if self.loss is None:
            found = (ops.gram(x, weight, self.scale),)
        elif isinstance(self.loss, MomentLoss):
            found = moments(x, weight, self.positions)
        else:
            self.features.append(x.clone())
            return
        if not self.sums:
            self.sums = [torch.zeros_like(tensor, dtype=wide_dtype(tensor.device)) for tensor in found]
        for total, tensor in zip(self.sums, found, strict=True):
            total += tensor

    def target(self) -> Target:
        """The target of a style picture with this layer."""
        if self.loss is None:
            return self._rounded()
        if isinstance(self.loss, MomentLoss):
            with torch.no_grad():
                return self.loss.target(*self._rounded())
        return measure(self.loss, self._take_features(), self.weight)

    def value_and_gradient(self, term: StyleTerm) -> tuple[Tensor, ScaledFeatureGradient]:
        """The value ``[]`` and the gradient of a style term with this loss and weight."""
        if self.loss is None:
            residual = self._rounded()[0] - term.target[0]
            value = term.factor * residual.to(wide_dtype(residual.device)).square().sum()
            return value, ScaledFeatureGradient(
                4.0 * term.factor * term.scale, FeatureGradient(matrix=residual), term.weight
            )
        if isinstance(self.loss, MomentLoss):
            mean, moment = self._rounded()
            value, found = moments_value_and_gradient(
                self.loss, mean, moment, term.target, self.positions if term.weight is None else 1
            )
        else:
            value, found = value_and_gradient(self.loss, self._take_features(), term.target, term.weight)
        return term.factor * value, ScaledFeatureGradient(term.factor, found, term.weight)

    def _rounded(self) -> tuple[Tensor, ...]:
        """The sums in the dtype in which the whole layer would be accumulated."""
        return tuple(total.to(self._dtype) for total in self.sums)

    def _take_features(self) -> Tensor:
        """All rows in the order of their addition; the parts are released."""
        features, self.features = torch.cat(self.features, 2), []
        return features
