"""Mean and Gram matrix of a feature map in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import check_features, check_scale, position_weight
from fastnst.ops.dtypes import accumulate_dtype, autocast_disabled
from fastnst.ops.gram import by_weight


def moments(x: Tensor, scale: float = 1.0, *, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute the mean over positions and the Gram matrix of a feature map in one pass.

    ``m = 1 / N * sum_n F_n`` and ``G = scale * F F^T``. With ``scale = 1 / N`` the covariance is ``G - m m^T``. With
    weights ``m = sum_n w_n F_n`` and ``G = scale * F diag(w) F^T``; if they sum to 1, ``scale = 1`` gives the
    covariance.

    Args:
        x: features F ``[B, C, ...positions]``, float32, float64, bfloat16 or float16; contiguous and channels_last
            are not copied.
        scale: factor of the Gram matrix.
        weight: w, one value per position, broadcastable to ``[B, ...positions]``. Differentiable.

    Returns:
        ``(mean [B, C], gram [B, C, C])``, float32, or float64 for float64 features. Without positions the mean is 0.
        Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> mean, gram = ops.moments(torch.tensor([[[1.0, 3.0]]]), scale=1 / 2)
        >>> mean.item(), gram.item()
        (2.0, 5.0)
    """
    check_features("moments", "x", x)
    flat = position_weight("moments", x, weight)
    mean, gram = torch.ops.fastnst.moments(x, flat, check_scale("moments", "scale", scale))
    return mean, gram


def _fake(x: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    dtype = accumulate_dtype(x.dtype)
    return x.new_empty(x.shape[:2], dtype=dtype), x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, ctx.scale = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad_mean: Tensor, grad_gram: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    by_x = by_w = None
    if ctx.needs_input_grad[0]:
        shift = grad_mean if weight is not None else grad_mean / max(x.shape[2:].numel(), 1)
        by_x = torch.ops.fastnst.gram_backward(grad_gram, x, weight, ctx.scale, shift)
    if ctx.needs_input_grad[1]:
        with autocast_disabled(x.device):
            by_w = by_weight(grad_gram, x, x, ctx.scale / 2) + (grad_mean[:, :, None] * reference.matrix(x)).sum(1)
    return by_x, by_w, None


_library.define("moments", reference.moments, _fake, batching="ms-", save=_save, backward=_backward)
