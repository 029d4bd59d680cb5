"""The style losses written from their formulas, and losses as a user might write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fastnst.losses.joint import JointLoss
from fastnst.losses.style import (
    FeatureGradient,
    FeatureLoss,
    MomentLoss,
    StyleLoss,
    measure,
    style_loss,
    style_losses,
    value_and_gradient,
)
from fastnst.losses.style.transport import Sliced

SEVERAL = tuple(name for name in style_losses() if name != "gram" and isinstance(style_loss(name), JointLoss))
"""The style losses that see several layers at once."""
SINGLE = tuple(name for name in style_losses() if name not in SEVERAL)


def features(c: int = 6, h: int = 5, w: int = 7, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Like those of a layer: correlated, not negative, with one channel that is zero everywhere."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(c, c, dtype=torch.float64, generator=generator) @ torch.randn(
        c, h * w, dtype=torch.float64, generator=generator
    )
    mixed[1] = -1
    return mixed.relu().reshape(1, c, h, w).to(dtype)


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Without two equal values, so that their order is unique."""
    return torch.randn((1, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient(p: FeatureGradient, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """``(matrix F + shift) diag(w) + direct``."""
    f = x.flatten(2)
    out = torch.zeros_like(f, dtype=torch.float64)
    if p.matrix is not None:
        out += p.matrix.double() @ f.double()
    if p.shift is not None:
        out += p.shift.double()[:, :, None]
    if weight is not None:
        out *= weight.flatten(1)[:, None, :]
    if p.direct is not None:
        out += p.direct.flatten(2)
    return out.reshape(x.shape)


def evaluate(loss: StyleLoss, x: Tensor, style: Tensor, weight: Tensor | None = None) -> tuple[float, Tensor]:
    value, found = value_and_gradient(loss, x, measure(loss, style), weight)
    return value.item(), gradient(found, x, weight)


# The losses, written with the features themselves, biased deviations and a general square root.


def plain_mean_std(x: Tensor, y: Tensor) -> Tensor:
    f, s = x.flatten(2)[0], y.flatten(2)[0]
    by_std = f.std(1, correction=0) - s.std(1, correction=0)
    return ((f.mean(1) - s.mean(1)) ** 2 + by_std**2).mean()


def plain_covariance(x: Tensor, y: Tensor) -> Tensor:
    apart = torch.cov(x.flatten(2)[0], correction=0) - torch.cov(y.flatten(2)[0], correction=0)
    return (apart**2).sum() / x.shape[1] ** 4


def plain_gram_mean_std(x: Tensor, y: Tensor) -> Tensor:
    """With the weights of the published program, divided by its style weight of 1000."""
    c, f, s = x.shape[1], x.flatten(2)[0], y.flatten(2)[0]
    gram = ((f @ f.T / f.shape[1] - s @ s.T / s.shape[1]) ** 2).mean() * 1e3 / c**2
    mean = ((f.mean(1) - s.mean(1)) ** 2).mean() * 1e4
    std = ((f.std(1, correction=0) - s.std(1, correction=0)) ** 2).mean() * 1e4
    return (gram + mean + std) / 1000


def plain_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """The root's trace as the sum of the singular values of K^(1/2) K'^(1/2), with roots by Cholesky."""
    c, f, s = x.shape[1], x.flatten(2)[0], y.flatten(2)[0]
    ridge = 1e-4 * torch.eye(c, dtype=x.dtype)
    k, wanted = torch.cov(f, correction=0) + ridge, torch.cov(s, correction=0) + ridge
    cross = torch.linalg.cholesky(k).T @ torch.linalg.cholesky(wanted)
    bures = k.trace() + wanted.trace() - 2 * torch.linalg.svdvals(cross).sum()
    return (((f.mean(1) - s.mean(1)) ** 2).sum() + bures) / c


def plain_lines(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Line by line, with numpy's interpolation for the style's quantiles."""
    f, s = directions @ x.flatten(2)[0], directions @ y.flatten(2)[0]
    n, m = f.shape[1], s.shape[1]
    total = x.new_zeros(())
    for line, wanted in zip(f, s, strict=True):
        ranks, given = (np.arange(n) + 0.5) / n, (np.arange(m) + 0.5) / m
        quantiles = torch.from_numpy(np.interp(ranks, given, np.sort(wanted.detach().numpy())))
        total = total + ((line.sort().values - quantiles) ** 2).mean()
    return total / f.shape[0]


def plain_sliced(x: Tensor, y: Tensor) -> Tensor:
    return plain_lines(x, y, Sliced().directions(x)[0])


def plain_histogram(x: Tensor, y: Tensor) -> Tensor:
    return plain_lines(x, y, torch.eye(x.shape[1], dtype=x.dtype))


PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean_std": plain_mean_std,
    "covariance": plain_covariance,
    "gram_mean_std": plain_gram_mean_std,
    "wasserstein": plain_wasserstein,
    "sliced": plain_sliced,
    "histogram": plain_histogram,
}


class Plain(MomentLoss):
    def target(self, mean: Tensor, moment: Tensor) -> tuple[Tensor, ...]:
        return mean, moment

    def loss(self, mean: Tensor, moment: Tensor, target: tuple[Tensor, ...]) -> Tensor:
        return (moment - target[1]).square().sum()


class Brightest(FeatureLoss):
    def target(self, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, ...]:
        return ((x if weight is None else x * (weight > 0)).flatten(2).amax(2),)

    def loss(self, x: Tensor, target: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        (found,) = self.target(x, weight)
        return (found - target[0]).float().square().mean()


class NeedsArguments(Plain):
    def __init__(self, strength: float) -> None:
        self.strength = strength


class Constant(Plain):
    def loss(self, mean: Tensor, moment: Tensor, target: tuple[Tensor, ...]) -> Tensor:
        return mean.new_ones(())


class Vector(Plain):
    def loss(self, mean: Tensor, moment: Tensor, target: tuple[Tensor, ...]) -> Tensor:
        return mean
