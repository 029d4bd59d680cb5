"""What a style loss is, what is kept of a style picture, and the gradient in the form that the engine lays on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastnst import ops
from fastnst.autograd import constant, leaf, recording
from fastnst.errors import UsageError
from fastnst.ops import _library
from fastnst.ops.reference import accumulate_dtype

Target = tuple[Tensor, ...]

CHUNK = 2**22  # values of a feature map that are copied at a time, so that a large map never needs a second one


class StyleLoss:
    """What :class:`MomentLoss` and :class:`FeatureLoss` share; derive from one of the two."""

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        """One target for several styles, whose ``weights`` sum to 1: the weighted mean of each tensor."""
        pairs = [list(zip(weights, kept, strict=True)) for kept in zip(*targets, strict=True)]
        return tuple(torch.stack([weight * tensor for weight, tensor in pair]).sum(0) for pair in pairs)


class MomentLoss(StyleLoss, ABC):
    """A loss of the features' mean and second moment alone, which one fused op gives in one pass.

    ``mean`` is ``[1, C]``, the mean over positions, and ``moment`` ``[1, C, C]`` is ``F F^T / N``, both float32, or
    float64 for float64 features. With position weights w that sum to 1 they are ``F w`` and ``F diag(w) F^T``.
    Autograd runs over these small tensors only::

        class Covariance(MomentLoss):
            def target(self, mean, moment):
                return (moment - mean[:, :, None] * mean[:, None, :],)

            def loss(self, mean, moment, target):
                (wanted,) = target
                return (moment - mean[:, :, None] * mean[:, None, :] - wanted).square().mean()
    """

    @abstractmethod
    def target(self, mean: Tensor, moment: Tensor) -> Target:
        """What is kept of a style picture's features."""

    @abstractmethod
    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        """The value ``[]``, which autograd can differentiate with respect to ``mean`` and ``moment``."""


class FeatureLoss(StyleLoss, ABC):
    """A loss of the features themselves, ``[1, C, ...positions]``, in their own dtype.

    ``weight`` is None, or ``[1, ...positions]`` in float32 (float64 for float64 features), not negative and of sum 1,
    for a style confined to a mask; a loss that cannot heed it raises :class:`fastnst.UsageError`. The style's features
    may have another number of positions::

        class Brightest(FeatureLoss):
            def target(self, x, weight=None):
                return ((x if weight is None else x * (weight > 0)).flatten(2).amax(2),)

            def loss(self, x, target, weight=None):
                (found,) = self.target(x, weight)
                return (found - target[0]).float().square().mean()
    """

    @abstractmethod
    def target(self, x: Tensor, weight: Tensor | None = None) -> Target:
        """What is kept of a style picture's features."""

    @abstractmethod
    def loss(self, x: Tensor, target: Target, weight: Tensor | None = None) -> Tensor:
        """The value ``[]``, which autograd can differentiate with respect to ``x``."""


@dataclass(frozen=True)
class Pull:
    """The gradient of a style loss with respect to features F: ``(matrix F + shift) diag(w) + direct``.

    w is the weight that :func:`pull` was given, and 1 at every position without one.

    Attributes:
        matrix: ``[1, C, C]``, symmetric, float32 or float64; None for no such part.
        shift: ``[1, C]`` of the same dtype; None for no such part.
        direct: shape and dtype of F; None for no such part.
    """

    matrix: Tensor | None = None
    shift: Tensor | None = None
    direct: Tensor | None = None


def measure(loss: StyleLoss, x: Tensor, weight: Tensor | None = None) -> Target:
    """What ``loss`` keeps of a style picture's features.

    Args:
        loss: the style loss.
        x: features ``[1, C, ...positions]``, float32, float64, bfloat16 or float16.
        weight: one value per position, ``[1, ...positions]``, not negative and of sum 1; None weighs all alike.

    Raises:
        UsageError: ``loss`` is neither a :class:`MomentLoss` nor a :class:`FeatureLoss`.
        TypeError, ValueError: features or weight of the wrong type, shape, dtype or device.
    """
    weight = _checked(x, weight)
    with recording(False), torch.autocast(x.device.type, enabled=False):
        if isinstance(loss, MomentLoss):
            return loss.target(*moments(x.detach(), weight))
        return _by_features(loss).target(x.detach(), weight)


def pull(loss: StyleLoss, x: Tensor, target: Target, weight: Tensor | None = None) -> tuple[Tensor, Pull]:
    """Value and gradient of ``loss`` at features ``x``; arguments as in :func:`measure`.

    Returns:
        The value ``[]``, float32 or float64, and the gradient. Neither carries an autograd graph.

    Raises:
        UsageError: the loss is of no known kind, its value is not a scalar, or has no derivative.
        TypeError, ValueError: features or weight of the wrong type, shape, dtype or device.
    """
    weight = _checked(x, weight)
    with torch.autocast(x.device.type, enabled=False):
        if isinstance(loss, MomentLoss):
            with recording(False):
                mean, moment = moments(x.detach(), weight)
            return pull_moments(loss, mean, moment, target, x.shape[2:].numel() if weight is None else 1)
        found = _by_features(loss)
        with recording():
            free = leaf(x)
            value = found.loss(free, _constants(target), None if weight is None else constant(weight))
            (direct,) = _gradients(loss, value, free)
        return value.detach().to(accumulate_dtype(x.dtype)), Pull(direct=direct)


def pull_moments(loss: MomentLoss, mean: Tensor, moment: Tensor, target: Target, positions: int) -> tuple[Tensor, Pull]:
    """As :func:`pull`, where mean and moment are known; ``positions`` is their number, or 1 with weights of sum 1."""
    with recording():
        mean, moment = leaf(mean), leaf(moment)
        value = loss.loss(mean, moment, _constants(target))
        by_mean, by_moment = _gradients(loss, value, mean, moment)
    matrix = None if by_moment is None else (by_moment + by_moment.mT) / positions
    return value.detach().to(moment.dtype), Pull(matrix, None if by_mean is None else by_mean / positions)


def moments(x: Tensor, weight: Tensor | None, positions: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean ``F w`` ``[1, C]`` and second moment ``F diag(w) F^T`` ``[1, C, C]``; without a weight w is ``1 / N``.

    With ``positions`` for N, those of a part of a map are parts of the map's.
    """
    if weight is None:
        here = max(x.shape[2:].numel(), 1)
        mean, moment = ops.moments(x, 1 / (positions or here))
        return (mean if positions is None else mean * (here / positions)), moment
    moment = ops.gram(x, weight)
    f, w = x.flatten(2)[0], weight.flatten()
    if f.dtype == moment.dtype:
        return (f @ w)[None], moment
    mean = moment.new_zeros(f.shape[0])
    step = max(CHUNK // f.shape[0], 1)
    for some, part in zip(f.split(step, 1), w.split(step), strict=True):
        mean += some.to(moment.dtype) @ part
    return mean[None], moment


class _Known(torch.autograd.Function):
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
    """``value``, whose derivative with respect to ``x`` autograd takes to be ``gradient``, of the shape of ``x``."""
    apply: Callable[[Tensor, Tensor, Tensor], Tensor] = _Known.apply
    return apply(x, value, gradient)


def _gradients(loss: StyleLoss, value: Tensor, *by: Tensor) -> tuple[Tensor | None, ...]:
    name = type(loss).__name__
    if value.shape != ():
        raise UsageError(f"style loss {name}: expected a value of shape (), got {tuple(value.shape)}")
    if not value.requires_grad:
        raise UsageError(f"style loss {name}: its value has no derivative; compute it from what loss() is given")
    return torch.autograd.grad(value, by, allow_unused=True)


def _constants(target: Target) -> Target:
    return tuple(constant(tensor) for tensor in target)


def _by_features(loss: StyleLoss) -> FeatureLoss:
    if not isinstance(loss, FeatureLoss):
        raise UsageError(f"expected a MomentLoss or a FeatureLoss as style loss, got {type(loss).__name__}")
    return loss


def _checked(x: Tensor, weight: Tensor | None) -> Tensor | None:
    """Check features, and a weight, which comes back as ``[1, ...positions]`` in float32 or float64."""
    _library.check_features("style loss", "x", x)
    if x.dim() < 3 or x.shape[0] != 1:
        raise ValueError(f"style loss: expected x of shape (1, C, ...positions), got {tuple(x.shape)}")
    flat = _library.position_weight("style loss", x, weight)
    return None if flat is None else flat.reshape(1, *x.shape[2:])
