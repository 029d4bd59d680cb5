"""The squared distance of two feature maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import check_device, check_dtype, check_dtype_like, check_shape_like, check_tensor
from fastnst.ops.dtypes import accumulate_dtype


def content_loss(x: Tensor, target: Tensor) -> Tensor:
    """Compute the squared distance of two feature maps in one pass.

    ``L = sum (F - P)^2``: eq. 1 of Gatys, Ecker and Bethge, "Image style transfer using convolutional neural networks",
    CVPR 2016, without its factor 1/2. The gradient is ``dL/dF = 2 (F - P)``.

    Args:
        x: features F of any shape, float32, float64, bfloat16 or float16.
        target: features P of the same shape, dtype and device. Inside autocast the dtypes may differ and are promoted.
            Differentiable.

    Returns:
        A scalar: float32, or float64 for float64 features. Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> ops.content_loss(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
        tensor(32.)
    """
    op = "content_loss"
    for name, value in (("x", x), ("target", target)):
        check_dtype(op, name, check_tensor(op, name, value))
    check_shape_like(op, "target", target, x)
    check_device(op, "target", target, x)
    if target.dtype != x.dtype and torch.is_autocast_enabled(x.device.type):
        dtype = torch.promote_types(x.dtype, target.dtype)
        x, target = x.to(dtype), target.to(dtype)
    check_dtype_like(op, "target", target, x)
    result: Tensor = torch.ops.fastnst.content_loss(x, target)
    return result


def _fake(x: Tensor, target: Tensor) -> Tensor:
    return x.new_empty((), dtype=accumulate_dtype(x.dtype))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, target = ctx.saved_tensors
    by_x = torch.ops.fastnst.content_loss_backward(grad, x, target)
    return by_x, -by_x if ctx.needs_input_grad[1] else None


def _fake_backward(grad: Tensor, x: Tensor, target: Tensor) -> Tensor:
    return torch.empty_like(x)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad, x, target = ctx.saved_tensors
    by_x = 2 * grad * h.to(grad.dtype)
    by_grad = 2 * (h.to(grad.dtype) * (x.to(grad.dtype) - target.to(grad.dtype))).sum()
    return by_grad.reshape(grad.shape), by_x.to(x.dtype), -by_x.to(x.dtype)


_library.define("content_loss", reference.content_loss, _fake, save=_save, backward=_backward)
_library.define(
    "content_loss_backward",
    reference.content_loss_backward,
    _fake_backward,
    batching="gmm",
    save=_save_backward,
    backward=_double_backward,
)
