"""Gram matrices, moments, style and content losses, and the backward pass of a layer with losses."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops.dtypes import accumulate_dtype, without_autocast
from fastnst.ops.reference.tensors import gradient_like, matrix


@without_autocast
def gram(x: Tensor, weight: Tensor | None, scale: float) -> Tensor:
    """``scale * F diag(w) F^T``."""
    f = matrix(x)
    left = f if weight is None else f * weight[:, None, :]
    g = scale * (left @ f.mT)
    return 0.5 * (g + g.mT)


@without_autocast
def gram_backward(grad: Tensor, x: Tensor, weight: Tensor | None, scale: float, shift: Tensor | None) -> Tensor:
    """``(scale * (D + D^T) F + shift) diag(w)``, with D for ``grad``."""
    out = scale * ((grad + grad.mT) @ matrix(x))
    if shift is not None:
        out = out + shift[:, :, None]
    if weight is not None:
        out = out * weight[:, None, :]
    return gradient_like(x, out)


@without_autocast
def moments(x: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The mean ``F w`` ``[B, C]`` and ``scale * F diag(w) F^T``; without w, the mean over positions and ``F F^T``."""
    f = matrix(x)
    mean = f.sum(2) / max(f.shape[2], 1) if weight is None else (f * weight[:, None, :]).sum(2)
    return mean, gram(x, weight, scale)


@without_autocast
def style_loss(x: Tensor, target: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """``sum (G - A)^2`` over the batch, and the residual ``R = G - A``."""
    residual = gram(x, weight, scale) - target
    return residual.square().sum(), residual


@without_autocast
def content_loss(x: Tensor, target: Tensor) -> Tensor:
    """``sum (F - P)^2``."""
    dtype = accumulate_dtype(x.dtype)
    return (x.to(dtype) - target.to(dtype)).square().sum()


@without_autocast
def content_loss_backward(grad: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """``2 grad (F - P)``."""
    dtype = accumulate_dtype(x.dtype)
    return gradient_like(x, 2 * grad * (x.to(dtype) - target.to(dtype)))


@without_autocast
def layer_backward_(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    style: float,
    shift: Tensor | None,
    target: Tensor | None,
    content: float,
    relu: bool,
) -> None:
    """In place: ``grad = mask(F > 0) * (grad + (style R F + shift) diag(w) + content (F - P))``."""
    dtype = accumulate_dtype(x.dtype)
    out = grad.to(dtype)
    if residual is not None:
        gradient = style * (residual @ matrix(x))
        if shift is not None:
            gradient = gradient + shift[:, :, None]
        if weight is not None:
            gradient = gradient * weight[:, None, :]
        out = out + gradient.reshape(x.shape)
    if target is not None:
        out = out + content * (x.to(dtype) - target.to(dtype))
    if relu:
        out = torch.where(x > 0, out, 0)
    grad.copy_(out)


def _bias(x: Tensor, bias: Tensor) -> Tensor:
    return bias.reshape(1, -1, *(1,) * (x.dim() - 2))


def bias_relu_(x: Tensor, bias: Tensor) -> None:
    """In place: ``x = max(x + bias, 0)``."""
    x.add_(_bias(x, bias)).relu_()


@without_autocast
def bias_relu_style_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """``y = max(x + bias, 0)``, and the style loss and residual of y."""
    y = torch.empty_like(x).copy_(x)
    bias_relu_(y, bias)
    return y, *style_loss(y, target, None, scale)
