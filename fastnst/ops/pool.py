"""Pooling over 2 x 2 windows; the max kind saves one byte per window for its backward instead of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import check_choice, check_feature_map
from fastnst.ops.dtypes import accumulate_dtype

KINDS = reference.POOLS


def pool(x: Tensor, kind: str = "max") -> Tensor:
    """Pool 2 x 2 windows with stride 2, without padding; an odd last row or column is dropped.

    A window's value is its maximum for ``"max"``, its mean for ``"average"`` and ``sqrt(mean(x^2) + 1e-8)`` for
    ``"l2"``. Saved for the backward are one byte per window, nothing, and input and output respectively.

    Args:
        x: features ``[B, C, H, W]``, float32, float64, bfloat16 or float16; contiguous and channels_last are not
            copied.
        kind: ``"max"``, ``"average"`` or ``"l2"``.

    Returns:
        ``[B, C, H // 2, W // 2]`` in the dtype of ``x``, channels_last if ``x`` is, else contiguous. Differentiable
        twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype, or an unknown kind.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> ops.pool(torch.arange(4.0).reshape(1, 1, 2, 2), "average")
        tensor([[[[1.5000]]]])
    """
    y, _ = pool_with_argmax(x, kind)
    return y


def pool_with_argmax(x: Tensor, kind: str = "max") -> tuple[Tensor, Tensor]:
    """Compute :func:`pool` and the argmax of each window, like ``return_indices=True`` of PyTorch's max pools.

    The argmax counts within a window instead of within the map: ``2 * row + column`` of the first maximum, where nan is
    the largest value, plus 4 unless the maximum is above zero. ``torch.ops.fastnst.pool_backward`` and
    ``fastnst.ops.conv3x3.conv3x3_backward`` take it.

    Args:
        x: as in :func:`pool`.
        kind: as in :func:`pool`.

    Returns:
        The pooled features, and for ``"max"`` the argmax, uint8 of the same shape and memory format; for other kinds
        the argmax is empty, ``[0]``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype, or an unknown kind.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> y, argmax = ops.pool_with_argmax(torch.arange(4.0).reshape(1, 1, 2, 2))
        >>> y.item(), argmax.item()
        (3.0, 3)
    """
    check_feature_map("pool", x)
    check_choice("pool", "kind", kind, KINDS)
    y, argmax = torch.ops.fastnst.pool(x, kind)
    return y, argmax


def _empty(like: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    shape, layout = (*like.shape[:2], height, width), reference.pool_layout(like)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)


def _fake(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    height, width = x.shape[2] // 2, x.shape[3] // 2
    none = x.new_empty((0,), dtype=torch.uint8)
    return _empty(x, height, width, x.dtype), _empty(x, height, width, torch.uint8) if kind == "max" else none


def _fake_after_bias(x: Tensor, bias: Tensor, kind: str, keep: bool) -> tuple[Tensor, Tensor]:
    return _fake(x, kind)


def _two_ops(x: Tensor, bias: Tensor, kind: str, keep: bool) -> tuple[Tensor, Tensor]:
    """For devices without the fused kernel, where ``pool`` may still have one."""
    torch.ops.fastnst.bias_relu_(x, bias)
    y, argmax = torch.ops.fastnst.pool(x, kind)
    return y, argmax


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.kind = inputs
    y, argmax = output
    ctx.size, ctx.layout = (x.shape[2], x.shape[3]), reference.pool_layout(x)
    ctx.mark_non_differentiable(argmax)
    ctx.save_for_backward(*((x, y, None) if ctx.kind == "l2" else (None, None, argmax)))


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
    x, y, argmax = ctx.saved_tensors
    grad = grad.contiguous(memory_format=ctx.layout)
    return torch.ops.fastnst.pool_backward(grad, x, y, argmax, ctx.kind, *ctx.size, False), None


def _fake_backward(
    grad: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    argmax: Tensor | None,
    kind: str,
    height: int,
    width: int,
    relu: bool,
) -> Tensor:
    return _empty(grad, height, width, grad.dtype)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, y, argmax, ctx.kind, _, _, ctx.relu = inputs
    ctx.save_for_backward(grad, x, y, argmax)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    """The backward is linear in ``grad``; the adjoint of its scatter is a gather."""
    grad, x, y, argmax = ctx.saved_tensors
    by_grad = by_x = by_y = None
    if ctx.kind == "average":
        by_grad = torch.ops.fastnst.pool(h, "average")[0]
    elif ctx.kind == "max":
        by_grad = reference.pick(h, argmax, ctx.relu)
    else:
        dtype = accumulate_dtype(grad.dtype)
        g, wide_y = grad.to(dtype), y.to(dtype)
        mean = torch.ops.fastnst.pool(h.to(dtype) * x.to(dtype), "average")[0]
        by_grad = (mean / wide_y).to(grad.dtype)
        by_y = (-g * mean / wide_y.square()).to(y.dtype)
        size = (x.shape[2], x.shape[3])
        by_x = torch.ops.fastnst.pool_backward(g / wide_y, None, None, None, "average", *size, False)
        by_x = (h.to(dtype) * by_x).to(x.dtype)
    return by_grad, by_x, by_y, None, None, None, None, None


_library.define("bias_relu_pool_", _two_ops, _fake_after_bias, batching="mw--")
_library.define("pool", reference.pool, _fake, batching="m-", save=_save, backward=_backward)
_library.define(
    "pool_backward",
    reference.pool_backward,
    _fake_backward,
    batching="mmmm----",
    save=_save_backward,
    backward=_double_backward,
)
