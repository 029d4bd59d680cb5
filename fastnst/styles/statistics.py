"""Style losses of means, standard deviations and covariances.

A squared difference of Gram matrices or covariances is divided by C^4, as in the Gram form ``channels`` of
:mod:`fastnst.losses`; one of means or deviations is a mean over channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.styles.base import MomentLoss, Target


def covariance(mean: Tensor, moment: Tensor) -> Tensor:
    """``moment - mean mean^T``, ``[1, C, C]``."""
    return moment - mean[:, :, None] * mean[:, None, :]


def deviation(mean: Tensor, moment: Tensor) -> Tensor:
    """Standard deviation of each channel ``[1, C]``: the root of ``M_cc - m_c^2``.

    What cancellation leaves of a variance below 8 rounding errors of ``M_cc`` counts as that much and has no
    derivative, which would be infinite at zero: a channel that is nowhere active pulls nowhere.
    """
    square = moment.diagonal(dim1=1, dim2=2)
    variance = square - mean.square()
    rounding = torch.finfo(moment.dtype)
    least = 8 * rounding.eps * square.detach() + rounding.tiny
    return torch.where(variance > least, variance, least).sqrt()


class MeanStd(MomentLoss):
    """``1 / C * sum_c (m - m')^2 + (s - s')^2``: mean m and standard deviation s of each channel.

    The statistics of adaptive instance normalisation (Huang and Belongie 2017); the loss is that of batch normalisation
    statistics in Li, Wang, Liu and Hou 2017, "Demystifying neural style transfer".
    """

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return mean, deviation(mean, moment)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        by_mean = (mean - target[0]).square().mean()
        return by_mean + (deviation(mean, moment) - target[1]).square().mean()


class Covariance(MomentLoss):
    """``sum (K - K')^2 / C^4`` with the covariance ``K = M - m m^T``: the Gram loss of centred features.

    The distance of Deep CORAL (Sun and Saenko 2016), there divided by ``4 C^2``; where the mean lies is free.
    """

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return (covariance(mean, moment),)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        return (covariance(mean, moment) - target[0]).square().sum() / mean.shape[1] ** 4


class GramMeanStd(MomentLoss):
    """``sum (M - M')^2 / C^4 + 10 / C * sum_c (m - m')^2 + (s - s')^2``: Gram matrix, mean and deviation.

    The style loss of Galerne, Raad, Lezama and Morel 2024, "Scaling painting style transfer". Their program weighs the
    mean squared difference of Gram matrices by ``1000 / C^2`` and those of means and deviations by ``1000 * 10``; this
    is that divided by 1000, which is the default style weight.
    """

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return moment, *MeanStd().target(mean, moment)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        gram, *rest = target
        by_gram = (moment - gram).square().sum() / mean.shape[1] ** 4
        return by_gram + 10 * MeanStd().loss(mean, moment, tuple(rest))
