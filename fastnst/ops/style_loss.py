"""The squared distance of two Gram matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import batch_matrix, check_features, check_scale, position_weight
from fastnst.ops.dtypes import accumulate_dtype
from fastnst.ops.gram import by_weight


def style_loss(x: Tensor, target: Tensor, weight: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """Compute the squared distance of a feature map's Gram matrix to a target, in one pass over the features.

    ``L = sum_bij (G_bij - A_bij)^2`` with ``G = scale * F diag(w) F^T``: eq. 4 of Gatys, Ecker and Bethge, "Image style
    transfer using convolutional neural networks", CVPR 2016, without its factor ``1 / (4 N^2 M^2)``. The gradient is
    ``dL/dF = 4 scale R F diag(w)`` (their eq. 6) with the residual ``R = G - A``; the features and R are saved for it.

    Args:
        x: features F ``[B, C, ...positions]``, float32, float64, bfloat16 or float16; contiguous and channels_last
            are not copied.
        target: Gram matrices A, ``[B, C, C]`` or ``[C, C]``, of a floating-point dtype. Differentiable.
        weight: one value per position, broadcastable to ``[B, ...positions]``, of a real dtype. Differentiable.
        scale: factor of the Gram matrix, the one that ``target`` was computed with.

    Returns:
        A scalar, summed over the batch: float32, or float64 for float64 features. Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> target = ops.gram(torch.ones(1, 2, 4, 4))
        >>> ops.style_loss(torch.zeros(1, 2, 4, 4), target)
        tensor(1024.)
    """
    loss, _ = style_loss_and_residual(x, target, weight, scale)
    return loss


def style_loss_and_residual(
    x: Tensor, target: Tensor, weight: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Compute :func:`style_loss` and the residual ``R = G - A`` that :func:`layer_backward_` takes.

    Args:
        x: as in :func:`style_loss`.
        target: as in :func:`style_loss`.
        weight: as in :func:`style_loss`.
        scale: as in :func:`style_loss`.

    Returns:
        The loss, a scalar, and the residual ``[B, C, C]``, both float32, or float64 for float64 features.
        Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> loss, residual = ops.style_loss_and_residual(torch.ones(1, 2, 4, 4), torch.zeros(2, 2))
        >>> loss.shape, residual.shape
        (torch.Size([]), torch.Size([1, 2, 2]))
    """
    check_features("style_loss", "x", x)
    target = batch_matrix("style_loss", "target", x, target)
    weight = position_weight("style_loss", x, weight)
    scale = check_scale("style_loss", "scale", scale)
    loss, residual = torch.ops.fastnst.style_loss(x, target, weight, scale)
    return loss, residual


def _fake(x: Tensor, target: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    dtype = accumulate_dtype(x.dtype)
    return x.new_empty((), dtype=dtype), x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, weight, ctx.scale = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: Tensor | None, grad_residual: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, residual = ctx.saved_tensors
    by_gram = grad_residual
    if grad_loss is not None:
        by_loss = 2 * grad_loss * residual
        by_gram = by_loss if by_gram is None else by_loss + by_gram
    if by_gram is None:
        return None, None, None, None
    by_x = torch.ops.fastnst.gram_backward(by_gram, x, weight, ctx.scale, None) if ctx.needs_input_grad[0] else None
    by_target = -by_gram if ctx.needs_input_grad[1] else None
    return by_x, by_target, by_weight(by_gram, x, x, ctx.scale / 2) if ctx.needs_input_grad[2] else None, None


_library.define("style_loss", reference.style_loss, _fake, batching="mss-", save=_save, backward=_backward)
