"""The base classes of style losses, their targets, and their gradients in a form that a fused op can add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastnst import ops
from fastnst.errors import UsageError
from fastnst.losses.autograd import constant, leaf, recording
from fastnst.losses.base import StyleLoss, Target
from fastnst.ops.checks import check_features, position_weight
from fastnst.ops.dtypes import accumulate_dtype, autocast_disabled

CHUNK = 2**22  # values of a feature map that are copied at a time, so that a large map is never copied whole


class MomentLoss(StyleLoss, ABC):
    """A loss that depends on the features' mean and second moment only, which one fused op computes in one pass.

    ``mean`` ``[1, C]`` is the mean over positions and ``moment`` ``[1, C, C]`` is ``F F^T / N``, both float32, or
    float64 for float64 features. With position weights w that sum to 1 they are ``F w`` and ``F diag(w) F^T``.
    Autograd records operations on these small tensors only::

        class Covariance(MomentLoss):
            def target(self, mean, moment):
                return (moment - mean[:, :, None] * mean[:, None, :],)

            def loss(self, mean, moment, target):
                (wanted,) = target
                return (moment - mean[:, :, None] * mean[:, None, :] - wanted).square().mean()
    """

    @abstractmethod
    def target(self, mean: Tensor, moment: Tensor) -> Target:
        """Return what is kept of a style image's mean and second moment."""

    @abstractmethod
    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        """Return the value, a scalar that autograd can differentiate with respect to ``mean`` and ``moment``."""


class FeatureLoss(StyleLoss, ABC):
    """A loss of the features themselves, ``[1, C, ...positions]``, in their own dtype.

    ``weight`` is None, or ``[1, ...positions]`` in float32 (float64 for float64 features), nonnegative with sum 1, for
    a style restricted to a mask; a loss that does not support weights raises :class:`fastnst.UsageError`. The style's
    features may have a different number of positions::

        class Brightest(FeatureLoss):
            def target(self, x, weight=None):
                return ((x if weight is None else x * (weight > 0)).flatten(2).amax(2),)

            def loss(self, x, target, weight=None):
                (found,) = self.target(x, weight)
                return (found - target[0]).float().square().mean()
    """

    @abstractmethod
    def target(self, x: Tensor, weight: Tensor | None = None) -> Target:
        """Return what is kept of a style image's features."""

    @abstractmethod
    def loss(self, x: Tensor, target: Target, weight: Tensor | None = None) -> Tensor:
        """Return the value, a scalar that autograd can differentiate with respect to ``x``."""


class KnownGradientLoss(FeatureLoss):
    """A :class:`FeatureLoss` that computes its gradient itself, without autograd."""

    @abstractmethod
    def value_and_gradient(self, x: Tensor, target: Target, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the value and its gradient, which has the shape and dtype of ``x``; autograd is disabled."""

    def loss(self, x: Tensor, target: Target, weight: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            value, gradient = self.value_and_gradient(x.detach(), target, weight)
        return with_gradient(x, value.to(accumulate_dtype(x.dtype)), gradient)


@dataclass(frozen=True)
class FeatureGradient:
    """The gradient of a style loss with respect to features F: ``(matrix F + shift) diag(w) + direct``.

    w is the weight passed to :func:`value_and_gradient`, or 1 at every position without a weight.

    Attributes:
        matrix: ``[1, C, C]``, symmetric, float32 or float64; None for zero.
        shift: ``[1, C]`` of the same dtype; None for zero.
        direct: shape and dtype of F; None for zero.

    Example:
        >>> gradient = FeatureGradient(matrix=torch.eye(8)[None])
        >>> gradient.shift is None
        True
    """

    matrix: Tensor | None = None
    shift: Tensor | None = None
    direct: Tensor | None = None


def measure(loss: StyleLoss, x: Tensor, weight: Tensor | None = None) -> Target:
    """Compute the target of ``loss`` from the features of a style image.

    Args:
        loss: the style loss.
        x: features ``[1, C, ...positions]``, float32, float64, bfloat16 or float16.
        weight: one value per position, ``[1, ...positions]``, nonnegative with sum 1; None for equal weights.

    Returns:
        The target, a tuple of tensors, for :func:`value_and_gradient`.

    Raises:
        UsageError: ``loss`` is neither a :class:`MomentLoss` nor a :class:`FeatureLoss`.
        TypeError, ValueError: features or weight of the wrong type, shape, dtype or device.

    Example:
        >>> import torch
        >>> from fastnst.losses.style import style_loss
        >>> (mean, deviation) = measure(style_loss("mean_std"), torch.rand(1, 8, 10, 10))
        >>> mean.shape
        torch.Size([1, 8])
    """
    weight = _checked(x, weight)
    with recording(False), autocast_disabled(x.device):
        if isinstance(loss, MomentLoss):
            return loss.target(*moments(x.detach(), weight))
        return _by_features(loss).target(x.detach(), weight)


def value_and_gradient(
    loss: StyleLoss, x: Tensor, target: Target, weight: Tensor | None = None
) -> tuple[Tensor, FeatureGradient]:
    """Compute value and gradient of ``loss`` at features ``x``.

    Args:
        loss: the style loss.
        x: features ``[1, C, ...positions]``, float32, float64, bfloat16 or float16.
        target: what :func:`measure` returned for the style image.
        weight: as in :func:`measure`.

    Returns:
        The value, a scalar in float32 or float64, and the gradient. Neither has an autograd graph.

    Raises:
        UsageError: ``loss`` is neither a :class:`MomentLoss` nor a :class:`FeatureLoss`, or its value is not
            scalar or not differentiable.
        TypeError, ValueError: features or weight of the wrong type, shape, dtype or device.

    Example:
        >>> import torch
        >>> from fastnst.losses.style import style_loss
        >>> loss, x = style_loss("covariance"), torch.rand(1, 8, 10, 10)
        >>> value, gradient = value_and_gradient(loss, x, measure(loss, torch.rand(1, 8, 12, 12)))
        >>> value.shape, gradient.matrix.shape
        (torch.Size([]), torch.Size([1, 8, 8]))
    """
    weight = _checked(x, weight)
    with autocast_disabled(x.device):
        if isinstance(loss, MomentLoss):
            with recording(False):
                mean, moment = moments(x.detach(), weight)
            return moments_value_and_gradient(loss, mean, moment, target, x.shape[2:].numel() if weight is None else 1)
        found = _by_features(loss)
        if isinstance(found, KnownGradientLoss):
            with recording(False):
                value, known = found.value_and_gradient(x.detach(), target, weight)
            return value.to(accumulate_dtype(x.dtype)), FeatureGradient(direct=known)
        with recording():
            free = leaf(x)
            value = found.loss(free, _constants(target), None if weight is None else constant(weight))
            (direct,) = _gradients(loss, value, free)
        return value.detach().to(accumulate_dtype(x.dtype)), FeatureGradient(direct=direct)


def moments_value_and_gradient(
    loss: MomentLoss, mean: Tensor, moment: Tensor, target: Target, positions: int
) -> tuple[Tensor, FeatureGradient]:
    """As :func:`value_and_gradient`, for known mean and moment of ``positions`` positions (1 with weights of sum 1)."""
    with recording():
        mean, moment = leaf(mean), leaf(moment)
        value = loss.loss(mean, moment, _constants(target))
        by_mean, by_moment = _gradients(loss, value, mean, moment)
    matrix = None if by_moment is None else (by_moment + by_moment.mT) / positions
    return value.detach().to(moment.dtype), FeatureGradient(matrix, None if by_mean is None else by_mean / positions)


def moments(x: Tensor, weight: Tensor | None, positions: int | None = None) -> tuple[Tensor, Tensor]:
    """Compute the mean ``F w`` ``[1, C]`` and second moment ``F diag(w) F^T`` ``[1, C, C]``; w defaults to ``1 / N``.

    ``positions`` replaces N. If ``x`` is a part of a map, pass the map's number of positions; the results of its parts
    then add up to the map's.
    """
    if weight is not None:
        return ops.moments(x, weight=weight)
    count = max(x.shape[2:].numel(), 1)
    mean, moment = ops.moments(x, 1 / (positions or count))
    return (mean if positions is None else mean * (count / positions)), moment


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad.to(gradient.dtype) * gradient, None, None


def with_gradient(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Return ``value`` with ``gradient`` as its derivative with respect to ``x``, whose shape ``gradient`` has."""
    apply: Callable[[Tensor, Tensor, Tensor], Tensor] = _KnownGradient.apply
    return apply(x, value, gradient)


def _gradients(loss: StyleLoss, value: Tensor, *by: Tensor) -> tuple[Tensor | None, ...]:
    name = type(loss).__name__
    if value.shape != ():
        raise UsageError(f"style loss {name}: expected a value of shape (), got {tuple(value.shape)}")
    if not value.requires_grad:
        raise UsageError(f"style loss {name}: its value has no derivative; compute it from the arguments of loss()")
    return torch.autograd.grad(value, by, allow_unused=True)


def _constants(target: Target) -> Target:
    return tuple(constant(tensor) for tensor in target)


def _by_features(loss: StyleLoss) -> FeatureLoss:
    if not isinstance(loss, FeatureLoss):
        raise UsageError(f"expected a MomentLoss or a FeatureLoss as style loss, got {type(loss).__name__}")
    return loss


def _checked(x: Tensor, weight: Tensor | None) -> Tensor | None:
    """Check features and weight; return the weight as ``[1, ...positions]`` in the accumulate dtype."""
    check_features("style loss", "x", x)
    if x.dim() < 3 or x.shape[0] != 1:
        raise ValueError(f"style loss: expected x of shape (1, C, ...positions), got {tuple(x.shape)}")
    flat = position_weight("style loss", x, weight)
    return None if flat is None else flat.reshape(1, *x.shape[2:])
