"""Style losses of means, standard deviations and covariances.

The squared difference of Gram matrices or covariances is divided by C^4, as in the form ``channels`` of
:mod:`fastnst.losses.forms`; that of means or deviations is averaged over channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.losses.base import Target
from fastnst.losses.style.base import MomentLoss


def covariance(mean: Tensor, moment: Tensor) -> Tensor:
    """Return ``moment - mean mean^T``, ``[1, C, C]``."""
    return moment - mean[:, :, None] * mean[:, None, :]


def deviation(mean: Tensor, moment: Tensor) -> Tensor:
    """Return the standard deviation of each channel, ``sqrt(M_cc - m_c^2)``, ``[1, C]``.

    Variances below 8 rounding errors of ``M_cc``, the result of cancellation, are clamped to that and have a zero
    derivative, because that of the root is infinite at zero.
    """
    square = moment.diagonal(dim1=1, dim2=2)
    variance = square - mean.square()
    rounding = torch.finfo(moment.dtype)
    least = 8 * rounding.eps * square.detach() + rounding.tiny
    return torch.where(variance > least, variance, least).sqrt()


class MeanStd(MomentLoss):
    """The squared distance of the mean m and standard deviation s of each channel.

    ``1 / C * sum_c (m_c - m'_c)^2 + (s_c - s'_c)^2``, the loss of batch normalization statistics in Li, Wang, Liu and
    Hou, "Demystifying neural style transfer", IJCAI 2017. The statistics are those of adaptive instance normalization
    (Huang and Belongie, ICCV 2017).
    """

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return mean, deviation(mean, moment)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        by_mean = (mean - target[0]).square().mean()
        return by_mean + (deviation(mean, moment) - target[1]).square().mean()


class Covariance(MomentLoss):
    """The squared distance of covariances, which is the Gram loss of centered features.

    ``sum (K - K')^2 / C^4`` with ``K = M - m m^T``: the distance of Deep CORAL (Sun and Saenko, ECCV 2016 workshops),
    which divides by ``4 C^2`` instead. It does not depend on the mean.
    """

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return (covariance(mean, moment),)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        return (covariance(mean, moment) - target[0]).square().sum() / mean.shape[1] ** 4


class GramMeanStd(MomentLoss):
    """The squared distances of Gram matrices, means and standard deviations together.

    ``sum (M - M')^2 / C^4 + 10 / C * sum_c (m_c - m'_c)^2 + (s_c - s'_c)^2``: the style loss of Galerne, Raad, Lezama
    and Morel, "Scaling painting style transfer", 2024, divided by 1000, the default style weight. Their program weighs
    the mean squared difference of Gram matrices by ``1000 / C^2`` and those of means and deviations by ``1000 * 10``.
    """

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return moment, *MeanStd().target(mean, moment)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        gram, *rest = target
        by_gram = (moment - gram).square().sum() / mean.shape[1] ** 4
        return by_gram + 10 * MeanStd().loss(mean, moment, tuple(rest))
