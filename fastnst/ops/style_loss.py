"""The squared distance of two Gram matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference


def style_loss(x: Tensor, target: Tensor, weight: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """``sum (G - A)^2`` with ``G = scale * F diag(w) F^T`` (Gatys, Ecker, Bethge 2016, eq. 4 without its factor).

    One pass over the features. Kept for the backward are the features and the residual ``R = G - A``; the gradient is
    ``dF = 4 scale g R F diag(w)``.

    Args:
        x: features ``[B, C, ...positions]``, float32, float64, bfloat16 or float16, contiguous or channels_last.
        target: Gram matrices A, ``[B, C, C]`` or ``[C, C]``. Differentiable.
        weight: one value per position, broadcastable to ``[B, ...positions]``; no derivative.
        scale: factor of the Gram matrix, the same that made ``target``.

    Returns:
        One value, summed over the batch, float32, or float64 for float64 features. Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.
    """
    loss, _ = style_loss_and_residual(x, target, weight, scale)
    return loss


def style_loss_and_residual(
    x: Tensor, target: Tensor, weight: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """:func:`style_loss` and the residual ``R = G - A`` ``[B, C, C]`` that :func:`tapped_backward_` takes."""
    _library.check_features("style_loss", "x", x)
    target = _library.batch_matrix("style_loss", "target", x, target)
    weight = _library.position_weight("style_loss", x, weight)
    scale = _library.check_scale("style_loss", "scale", scale)
    loss, residual = torch.ops.fastnst.style_loss(x, target, weight, scale)
    return loss, residual


def _fake(x: Tensor, target: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    dtype = reference.accumulate_dtype(x.dtype)
    return x.new_empty((), dtype=dtype), x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, weight, ctx.scale = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, grad_loss: Tensor | None, grad_residual: Tensor | None
) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, weight, residual = ctx.saved_tensors
    by_gram = grad_residual
    if grad_loss is not None:
        pull = 2 * grad_loss * residual
        by_gram = pull if by_gram is None else pull + by_gram
    if by_gram is None:
        return None, None, None, None
    by_x = torch.ops.fastnst.gram_backward(by_gram, x, weight, ctx.scale, None) if ctx.needs_input_grad[0] else None
    return by_x, -by_gram if ctx.needs_input_grad[1] else None, None, None


_library.define("style_loss", reference.style_loss, _fake, save=_save, backward=_backward)
