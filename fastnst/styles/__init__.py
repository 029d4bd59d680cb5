"""Style losses beside the Gram matrix, by name, and the two classes from which a user's own derives.

=================  ===================================================  ==============================
name               compares                                             through
=================  ===================================================  ==============================
``mean_std``       mean and standard deviation of each channel          :class:`MomentLoss`
``covariance``     covariances                                          :class:`MomentLoss`
``gram_mean_std``  Gram matrices, means and standard deviations         :class:`MomentLoss`
``wasserstein``    Gaussians of the same mean and covariance            :class:`MomentLoss`
``sliced``         distributions along random directions                :class:`FeatureLoss`
``histogram``      distribution of each channel                         :class:`FeatureLoss`
=================  ===================================================  ==============================

:func:`measure` keeps what a loss needs of a style picture; :func:`pull` gives value and gradient at a layer's features.
A loss reaches :func:`style_loss` by :func:`register`, or from an installed package by an entry point::

    [project.entry-points."fastnst.style_losses"]
    brightest = "my_package.losses:Brightest"
"""

from __future__ import annotations

from fastnst.styles.base import FeatureLoss, MomentLoss, Pull, StyleLoss, Target, measure, pull
from fastnst.styles.registry import register, style_loss, style_losses

__all__ = [
    "FeatureLoss",
    "MomentLoss",
    "Pull",
    "StyleLoss",
    "Target",
    "measure",
    "pull",
    "register",
    "style_loss",
    "style_losses",
]
