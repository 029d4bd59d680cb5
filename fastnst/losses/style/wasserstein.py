"""The Wasserstein-2 distance of Gaussians with the means and covariances of the features."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from fastnst.devices import to_float64
from fastnst.losses.base import StyleLoss, Target
from fastnst.losses.style.base import MomentLoss, with_gradient
from fastnst.losses.style.statistics import covariance


class Wasserstein(MomentLoss):
    """The squared Wasserstein-2 distance of Gaussians with means m, m' and covariances K, K', divided by C.

    ``1 / C * (|m - m'|^2 + tr(K + K' - 2 (S K S)^(1/2)))`` with ``S = K'^(1/2)``: Olkin and Pukelsheim, "The distance
    between two random vectors with given dispersion matrices", 1982. The derivative of the trace, the squared Bures
    distance, with respect to K is ``I - S (S K S)^(-1/2) S``, where the second term is the optimal map from K to K'.

    Eigenvalues of ``S K S`` are clamped to ``(8 eps)^2`` times the largest, with the eps of the statistics' dtype, and
    to ``ridge^2``. They are computed in float64 whatever the features' dtype, because the condition number of ``S K S``
    is the square of that of K: on the device, or on the CPU where the device has no float64. On accelerators this
    synchronizes with the device.

    Several styles are blended by averaging their means and second moments.

    Args:
        ridge: added to the diagonals of K and K', so that the root is differentiable for constant channels and for
            fewer positions than channels.
    """

    def __init__(self, ridge: float = 1e-4) -> None:
        self.ridge = ridge

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        """Return the mean ``[1, C]``, and the covariance with ridge and its root, both ``[1, C, C]`` in float64."""
        kept = _with_ridge(covariance(mean, moment), self.ridge)
        values, vectors = _eigh(kept)
        root = (vectors * values.clamp_min(self.ridge).sqrt()[:, None, :]) @ vectors.mT
        return mean, kept, root

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        center, kept, root = target
        by_mean = (mean - center).square().sum()
        return (by_mean + self._bures(covariance(mean, moment), kept, root)) / mean.shape[1]

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        raw = [(mean, kept + to_float64(mean)[:, :, None] * to_float64(mean)[:, None, :]) for mean, kept, _ in targets]
        mean, moment = StyleLoss.blend(self, raw, weights)
        diagonal = self.ridge * torch.eye(mean.shape[1], dtype=moment.dtype, device=moment.device)
        blended, *rest = self.target(to_float64(mean), moment - diagonal)
        return blended.to(mean), *rest

    def _bures(self, k: Tensor, kept: Tensor, root: Tensor) -> Tensor:
        with torch.no_grad():
            own = _with_ridge(k, self.ridge)
            product = root @ own @ root
            # nan in the features must give a nan loss (by the trace below) instead of an error of LAPACK.
            product = torch.nan_to_num(0.5 * (product + product.mT), 0.0, 0.0, 0.0)
            values, vectors = _eigh(product)
            roots = values.clamp_min(0).sqrt()
            least = (8 * torch.finfo(k.dtype).eps * roots[:, -1:]).clamp_min(self.ridge)
            roots = roots.maximum(least)
            trace = (own + kept).diagonal(dim1=1, dim2=2).sum() - 2 * roots.sum()
            side = root @ vectors
            unit = torch.eye(k.shape[1], dtype=own.dtype, device=own.device)
            gradient = unit - (side / roots[:, None, :]) @ side.mT
        return with_gradient(k, trace.to(k), gradient.to(k))


def _eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; with one thread on the CPU where threads that wait sleep.

    LAPACK's threads wait for each other thousands of times. If each time they are put to sleep and woken, two threads
    take twice as long as one.
    """
    if x.device.type != "cpu" or os.environ.get("OMP_WAIT_POLICY", "").strip().lower() != "passive":
        values, vectors = torch.linalg.eigh(x)
        return values, vectors
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values, vectors = torch.linalg.eigh(x)
    finally:
        torch.set_num_threads(threads)
    return values, vectors


def _with_ridge(k: Tensor, ridge: float) -> Tensor:
    exact = to_float64(k)
    unit = torch.eye(k.shape[1], dtype=exact.dtype, device=exact.device)
    return 0.5 * (exact + exact.mT) + ridge * unit
