"""The Gram matrix of a feature map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import check_features, check_scale, position_weight
from fastnst.ops.dtypes import accumulate_dtype, autocast_disabled


def gram(x: Tensor, weight: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """Compute the Gram matrix of a feature map, exactly symmetric.

    ``G = scale * F diag(w) F^T``, eq. 3 of Gatys, Ecker and Bethge, "Image style transfer using convolutional neural
    networks", CVPR 2016; with a weight, the guided Gram matrix of Gatys et al., "Controlling perceptual factors in
    neural style transfer", CVPR 2017.

    Args:
        x: features F ``[B, C, ...positions]``, float32, float64, bfloat16 or float16; contiguous and channels_last
            are not copied.
        weight: one value per position, broadcastable to ``[B, ...positions]``, of a real dtype. Differentiable.
        scale: a factor such as ``1 / (C * N)`` for N positions.

    Returns:
        ``[B, C, C]``, float32, or float64 for float64 features. Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> ops.gram(torch.ones(1, 2, 4, 4), scale=1 / 16)
        tensor([[[1., 1.],
                 [1., 1.]]])
    """
    check_features("gram", "x", x)
    scale = check_scale("gram", "scale", scale)
    weight = position_weight("gram", x, weight)
    result: Tensor = torch.ops.fastnst.gram(x, weight, scale)
    return result


def _fake(x: Tensor, weight: Tensor | None, scale: float) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=accumulate_dtype(x.dtype))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.scale = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    by_x = torch.ops.fastnst.gram_backward(grad, x, weight, ctx.scale, None) if ctx.needs_input_grad[0] else None
    return by_x, by_weight(grad, x, x, ctx.scale / 2) if ctx.needs_input_grad[1] else None, None


def by_weight(grad: Tensor, x: Tensor, other: Tensor, scale: float) -> Tensor:
    """The quadratic form ``scale * H_n^T (D + D^T) F_n`` of each position n, with D for ``grad`` and H for ``other``.

    For a Gram matrix, ``H = F`` and half the scale give the derivative with respect to the weight.
    """
    dtype = accumulate_dtype(x.dtype)
    by_x: Tensor = torch.ops.fastnst.gram_backward(grad, x.to(dtype), None, scale, None)
    return (other.to(dtype) * by_x).sum(1).reshape(x.shape[0], x.shape[2:].numel())


def _fake_backward(grad: Tensor, x: Tensor, weight: Tensor | None, scale: float, shift: Tensor | None) -> Tensor:
    return torch.empty_like(x)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, weight, ctx.scale, shift = inputs
    ctx.save_for_backward(grad, x, weight, shift)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    """Of ``(s (D + D^T) F + shift) W`` with a cotangent H: ``s (H W F^T + F W H^T)`` by D, ``s (D + D^T) H W`` by F."""
    grad, x, weight, shift = ctx.saved_tensors
    by_grad = by_x = by_w = by_shift = None
    with autocast_disabled(x.device):
        cotangent = reference.matrix(h)
        weighted = cotangent if weight is None else cotangent * weight[:, None, :]
        if ctx.needs_input_grad[0]:
            m = weighted @ reference.matrix(x).mT
            by_grad = ctx.scale * (m + m.mT)
        if ctx.needs_input_grad[1]:
            by_x = torch.ops.fastnst.gram_backward(grad, h, weight, ctx.scale, None)
        if ctx.needs_input_grad[2]:
            by_w = by_weight(grad, x, h, ctx.scale)
            if shift is not None:
                by_w = by_w + (shift[:, :, None] * cotangent).sum(1)
        if shift is not None and ctx.needs_input_grad[4]:
            by_shift = weighted.sum(2)
    return by_grad, by_x, by_w, None, by_shift


_library.define("gram", reference.gram, _fake, batching="ms-", save=_save, backward=_backward)
_library.define(
    "gram_backward",
    reference.gram_backward,
    _fake_backward,
    batching="sms-s",
    save=_save_backward,
    backward=_double_backward,
)
