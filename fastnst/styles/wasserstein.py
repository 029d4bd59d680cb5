"""The Wasserstein-2 distance of Gaussians with the features' means and covariances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastnst.styles.base import MomentLoss, StyleLoss, Target, with_gradient
from fastnst.styles.statistics import covariance


class Wasserstein(MomentLoss):
    """``1 / C * (|m - m'|^2 + tr(K + K' - 2 (S K S)^(1/2)))`` with ``S = K'^(1/2)``.

    The squared Wasserstein-2 distance of two Gaussians (Olkin and Pukelsheim 1982; its second part is the squared Bures
    distance), divided by C. The derivative of the second part with respect to K is
    ``I - S (S K S)^(-1/2) S``: the identity less the optimal map from K to K'.

    ``ridge`` is added to the diagonals of K and K', so that the root has a derivative where channels are flat or there
    are fewer positions than channels. Eigenvalues of ``S K S`` below ``(8 eps)^2`` of the largest, eps being the
    rounding of the statistics, or below ``ridge^2`` count as that much. Eigenvalues are computed in float64 whatever
    the features' dtype, because S K S squares what K spans. On CUDA this waits for the device.

    Several styles are blended as one: their means and second moments are averaged.
    """

    def __init__(self, ridge: float = 1e-4) -> None:
        self.ridge = ridge

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        """Mean ``[1, C]``, covariance and its root ``[1, C, C]``, the two with the ridge in float64."""
        kept = _with_ridge(covariance(mean, moment), self.ridge)
        values, vectors = torch.linalg.eigh(kept)
        root = (vectors * values.clamp_min(self.ridge).sqrt()[:, None, :]) @ vectors.mT
        return mean, kept, root

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        wanted, kept, root = target
        apart = (mean - wanted).square().sum()
        return (apart + self._bures(covariance(mean, moment), kept, root)) / mean.shape[1]

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        raw = [(mean, kept + mean[:, :, None].double() * mean[:, None, :].double()) for mean, kept, _ in targets]
        mean, moment = StyleLoss.blend(self, raw, weights)
        diagonal = self.ridge * torch.eye(mean.shape[1], dtype=moment.dtype, device=moment.device)
        of_mean, *rest = self.target(mean.double(), moment - diagonal)
        return of_mean.to(mean.dtype), *rest

    def _bures(self, k: Tensor, kept: Tensor, root: Tensor) -> Tensor:
        with torch.no_grad():
            own = _with_ridge(k, self.ridge)
            product = root @ own @ root
            # Features that are no numbers must give a value that is none, not an error of LAPACK's.
            product = torch.nan_to_num(0.5 * (product + product.mT), 0.0, 0.0, 0.0)
            values, vectors = torch.linalg.eigh(product)
            roots = values.clamp_min(0).sqrt()
            least = (8 * torch.finfo(k.dtype).eps * roots[:, -1:]).clamp_min(self.ridge)
            roots = roots.maximum(least)
            trace = (own + kept).diagonal(dim1=1, dim2=2).sum() - 2 * roots.sum()
            side = root @ vectors
            unit = torch.eye(k.shape[1], dtype=own.dtype, device=own.device)
            gradient = unit - (side / roots[:, None, :]) @ side.mT
        return with_gradient(k, trace.to(k.dtype), gradient.to(k.dtype))


def _with_ridge(k: Tensor, ridge: float) -> Tensor:
    exact = k.double()
    unit = torch.eye(k.shape[1], dtype=exact.dtype, device=k.device)
    return 0.5 * (exact + exact.mT) + ridge * unit
