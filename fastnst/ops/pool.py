"""Pooling over 2 x 2 windows whose max form remembers a byte per window instead of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.errors import nearest
from fastnst.ops import _library, reference

KINDS = reference.POOLS


def pool(x: Tensor, kind: str = "max") -> Tensor:
    """Maximum, average or root mean square ``sqrt(mean(x^2) + 1e-8)`` of 2 x 2 windows, stride 2.

    An odd last row or column is dropped. Kept for the backward are one byte per window for ``"max"``, nothing for
    ``"average"``, and input and output for ``"l2"``.

    Args:
        x: features ``[B, C, H, W]``, float32, float64, bfloat16 or float16; contiguous and channels_last are not
            copied.
        kind: ``"max"``, ``"average"`` or ``"l2"``.

    Returns:
        ``[B, C, H // 2, W // 2]`` in the dtype of ``x``, channels_last where ``x`` is, else contiguous.
        Differentiable twice.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype, or an unknown kind.
    """
    y, _ = pool_and_places(x, kind)
    return y


def pool_and_places(x: Tensor, kind: str = "max") -> tuple[Tensor, Tensor]:
    """:func:`pool` and what ``torch.ops.fastnst.pool_backward`` needs of a maximum.

    The places are uint8 in the shape and layout of the pool: ``2 row + column`` of the first maximum in its window (nan
    counts as the largest), plus 4 where the maximum is not above zero. For the other kinds they are empty, ``(0,)``.
    """
    _library.check_features("pool", "x", x)
    if x.dim() != 4:
        raise ValueError(f"pool: expected x of shape (B, C, H, W), got {tuple(x.shape)}")
    if kind not in KINDS:
        raise ValueError(f"pool: unknown kind {kind!r}{nearest(str(kind), KINDS)} (known: {', '.join(KINDS)})")
    y, places = torch.ops.fastnst.pool(x, kind)
    return y, places


def _empty(like: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    shape, layout = (*like.shape[:2], height, width), reference.pool_layout(like)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)


def _fake(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    height, width = x.shape[2] // 2, x.shape[3] // 2
    none = x.new_empty((0,), dtype=torch.uint8)
    return _empty(x, height, width, x.dtype), _empty(x, height, width, torch.uint8) if kind == "max" else none


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.kind = inputs
    y, places = output
    ctx.size, ctx.layout = (x.shape[2], x.shape[3]), reference.pool_layout(x)
    ctx.mark_non_differentiable(places)
    ctx.save_for_backward(*((x, y, None) if ctx.kind == "l2" else (None, None, places)))


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
    x, y, places = ctx.saved_tensors
    grad = grad.contiguous(memory_format=ctx.layout)
    return torch.ops.fastnst.pool_backward(grad, x, y, places, ctx.kind, *ctx.size, False), None


def _fake_backward(
    grad: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    places: Tensor | None,
    kind: str,
    height: int,
    width: int,
    relu: bool,
) -> Tensor:
    return _empty(grad, height, width, grad.dtype)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, y, places, ctx.kind, _, _, ctx.relu = inputs
    ctx.save_for_backward(grad, x, y, places)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    """The backward is linear in the gradient: its derivative gathers where it scattered."""
    grad, x, y, places = ctx.saved_tensors
    by_grad = by_x = by_y = None
    if ctx.kind == "average":
        by_grad = torch.ops.fastnst.pool(h, "average")[0]
    elif ctx.kind == "max":
        by_grad = reference.pick(h, places, ctx.relu)
    else:
        dtype = reference.accumulate_dtype(grad.dtype)
        g, wide_y = grad.to(dtype), y.to(dtype)
        mean = torch.ops.fastnst.pool(h.to(dtype) * x.to(dtype), "average")[0]
        by_grad = (mean / wide_y).to(grad.dtype)
        by_y = (-g * mean / wide_y.square()).to(y.dtype)
        size = (x.shape[2], x.shape[3])
        by_x = torch.ops.fastnst.pool_backward(g / wide_y, None, None, None, "average", *size, False)
        by_x = (h.to(dtype) * by_x).to(x.dtype)
    return by_grad, by_x, by_y, None, None, None, None, None


_library.define("pool", reference.pool, _fake, save=_save, backward=_backward)
_library.define(
    "pool_backward", reference.pool_backward, _fake_backward, save=_save_backward, backward=_double_backward
)
