"""Style losses other than that of the Gram matrix, by name, and the base classes for custom ones.

=================  ===================================================  ==============================
name               compares                                             base class
=================  ===================================================  ==============================
``mean_std``       mean and standard deviation of each channel          :class:`MomentLoss`
``covariance``     covariances                                          :class:`MomentLoss`
``gram_mean_std``  Gram matrices, means and standard deviations         :class:`MomentLoss`
``wasserstein``    Gaussians of the same mean and covariance            :class:`MomentLoss`
``sliced``         distributions along random directions                :class:`FeatureLoss`
``histogram``      distribution of each channel                         :class:`FeatureLoss`
``cnnmrf``         patches of 3 x 3 positions with the style's nearest  :class:`FeatureLoss`
=================  ===================================================  ==============================

Losses that see several layers at once, such as ``nnst`` and ``strotss``, are in :mod:`fastnst.losses.joint`.

:func:`measure` computes a loss's target from the features of a style image, :func:`value_and_gradient` its value and
gradient at a layer's features. :func:`register` adds a loss to those that :func:`style_loss` finds by name. An
installed package adds one by an entry point::

    [project.entry-points."fastnst.style_losses"]
    brightest = "my_package.losses:Brightest"
"""

from __future__ import annotations

from fastnst.losses.base import StyleLoss, Target
from fastnst.losses.style.base import FeatureGradient, FeatureLoss, MomentLoss, measure, value_and_gradient
from fastnst.losses.style.registry import content_loss, register, style_loss, style_losses

__all__ = [
    "FeatureGradient",
    "FeatureLoss",
    "MomentLoss",
    "StyleLoss",
    "Target",
    "content_loss",
    "measure",
    "register",
    "style_loss",
    "style_losses",
    "value_and_gradient",
]
