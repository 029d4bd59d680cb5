"""The Gram matrix of a feature map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference


def gram(x: Tensor, weight: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """Gram matrix ``G = scale * F diag(w) F^T`` (Gatys, Ecker, Bethge 2016, eq. 3), exactly symmetric.

    Args:
        x: features ``[B, C, ...positions]``, float32, float64, bfloat16 or float16, contiguous or channels_last
            (neither is copied).
        weight: one value per position, broadcastable to ``[B, ...positions]``: guided Gram matrices (Gatys et al.
            2017). It has no derivative.
        scale: a factor, such as ``1 / (C * N)``.

    Returns:
        ``[B, C, C]``, float32, or float64 for float64 features. Differentiable twice with respect to ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.
    """
    _library.check_features("gram", "x", x)
    scale = _library.check_scale("gram", "scale", scale)
    weight = _library.position_weight("gram", x, weight)
    result: Tensor = torch.ops.fastnst.gram(x, weight, scale)
    return result


def _fake(x: Tensor, weight: Tensor | None, scale: float) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=reference.accumulate_dtype(x.dtype))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.scale = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    x, weight = ctx.saved_tensors
    return torch.ops.fastnst.gram_backward(grad, x, weight, ctx.scale, None), None, None


def _fake_backward(grad: Tensor, x: Tensor, weight: Tensor | None, scale: float, shift: Tensor | None) -> Tensor:
    return torch.empty_like(x)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, weight, ctx.scale, shift = inputs
    ctx.shifted = shift is not None
    ctx.save_for_backward(grad, x, weight)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, Tensor | None]:
    """For out = s (D + D^T) F W + shift and a cotangent H: D gets s (H W F^T + F W H^T), F gets s (D + D^T) H W."""
    grad, x, weight = ctx.saved_tensors
    by_grad = by_x = by_shift = None
    with torch.autocast(x.device.type, enabled=False):
        cotangent = reference.matrix(h)
        if ctx.needs_input_grad[0]:
            m = (cotangent if weight is None else cotangent * weight[:, None, :]) @ reference.matrix(x).mT
            by_grad = ctx.scale * (m + m.mT)
        if ctx.needs_input_grad[1]:
            by_x = torch.ops.fastnst.gram_backward(grad, h, weight, ctx.scale, None)
        if ctx.shifted and ctx.needs_input_grad[4]:
            by_shift = cotangent.sum(2)
    return by_grad, by_x, None, None, by_shift


_library.define("gram", reference.gram, _fake, save=_save, backward=_backward)
_library.define(
    "gram_backward", reference.gram_backward, _fake_backward, save=_save_backward, backward=_double_backward
)
