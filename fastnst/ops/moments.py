"""Mean and Gram matrix of a feature map in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference


def moments(x: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean over positions and Gram matrix ``scale * F F^T``, both from one pass over the features.

    With ``scale = 1 / N`` the covariance is ``gram - mean mean^T``.

    Args:
        x: features ``[B, C, ...positions]``, float32, float64, bfloat16 or float16, contiguous or channels_last.
        scale: factor of the Gram matrix.

    Returns:
        ``(mean [B, C], gram [B, C, C])``, float32, or float64 for float64 features. The mean of no positions is 0.
        Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype.
    """
    _library.check_features("moments", "x", x)
    mean, gram = torch.ops.fastnst.moments(x, _library.check_scale("moments", "scale", scale))
    return mean, gram


def _fake(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    dtype = reference.accumulate_dtype(x.dtype)
    return x.new_empty(x.shape[:2], dtype=dtype), x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.scale = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad_mean: Tensor, grad_gram: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    shift = grad_mean / max(x.shape[2:].numel(), 1)
    return torch.ops.fastnst.gram_backward(grad_gram, x, None, ctx.scale, shift), None


_library.define("moments", reference.moments, _fake, save=_save, backward=_backward)
