"""The squared distance of two feature maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference


def content_loss(x: Tensor, target: Tensor) -> Tensor:
    """``sum (F - P)^2`` in one pass (Gatys, Ecker, Bethge 2016, eq. 1 without its factor 1/2).

    Args:
        x: features of any shape, float32, float64, bfloat16 or float16.
        target: features of the same shape, dtype and device; inside autocast the dtypes may differ and the wider one
            is used. Differentiable.

    Returns:
        One value, float32, or float64 for float64 features. Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.
    """
    for name, value in (("x", x), ("target", target)):
        _library.check_tensor("content_loss", name, value)
        if value.dtype not in _library.DTYPES:
            raise TypeError(
                f"content_loss: expected {name} of dtype float32, float64, bfloat16 or float16, got {value.dtype}"
            )
    if target.shape != x.shape:
        raise ValueError(f"content_loss: expected target of shape {tuple(x.shape)} like x, got {tuple(target.shape)}")
    _library.check_device("content_loss", "target", target, x)
    if target.dtype != x.dtype:
        if not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"content_loss: expected target of dtype {x.dtype} like x, got {target.dtype}")
        dtype = torch.promote_types(x.dtype, target.dtype)
        x, target = x.to(dtype), target.to(dtype)
    result: Tensor = torch.ops.fastnst.content_loss(x, target)
    return result


def _fake(x: Tensor, target: Tensor) -> Tensor:
    return x.new_empty((), dtype=reference.accumulate_dtype(x.dtype))


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
    save=_save_backward,
    backward=_double_backward,
)
