"""Mean and Gram matrix of a feature map in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import check_features, check_scale
from fastnst.ops.dtypes import accumulate_dtype


def moments(x: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute the mean over positions and the Gram matrix of a feature map in one pass.

    ``m = 1 / N * sum_n F_n`` and ``G = scale * F F^T``. With ``scale = 1 / N`` the covariance is ``G - m m^T``.

    Args:
        x: features F ``[B, C, ...positions]``, float32, float64, bfloat16 or float16; contiguous and channels_last
            are not copied.
        scale: factor of the Gram matrix.

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
    mean, gram = torch.ops.fastnst.moments(x, check_scale("moments", "scale", scale))
    return mean, gram


def _fake(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    dtype = accumulate_dtype(x.dtype)
    return x.new_empty(x.shape[:2], dtype=dtype), x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.scale = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad_mean: Tensor, grad_gram: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    shift = grad_mean / max(x.shape[2:].numel(), 1)
    return torch.ops.fastnst.gram_backward(grad_gram, x, None, ctx.scale, shift), None


_library.define("moments", reference.moments, _fake, batching="m-", save=_save, backward=_backward)
