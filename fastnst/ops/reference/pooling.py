"""Pooling over 2 x 2 windows and its gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.ops.dtypes import accumulate_dtype
from fastnst.ops.reference.tensors import pool_layout

POOLS = ("max", "average", "l2")
L2_EPSILON = 1e-8


def pool(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The pooled map, and for max the argmax of each window: ``2 row + column``, plus 4 unless it is above 0."""
    b, c, h, w = x.shape
    layout, none = pool_layout(x), x.new_empty((0,), dtype=torch.uint8)
    if b * c * (h // 2) * (w // 2) == 0:
        y = torch.empty((b, c, h // 2, w // 2), dtype=x.dtype, device=x.device, memory_format=layout)
        return y, torch.empty_like(y, dtype=torch.uint8) if kind == "max" else none
    if kind == "average":
        return F.avg_pool2d(x, 2).contiguous(memory_format=layout), none
    if kind == "l2":
        squares = F.avg_pool2d(x.to(accumulate_dtype(x.dtype)).square(), 2)
        return squares.add_(L2_EPSILON).sqrt_().to(x.dtype).contiguous(memory_format=layout), none
    y, where = F.max_pool2d(x, 2, return_indices=True)
    argmax = where // w % 2 * 2 + where % w % 2 + 4 * ~(y > 0)
    return y.contiguous(memory_format=layout), argmax.to(torch.uint8).contiguous(memory_format=layout)


def pool_backward(
    grad: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    argmax: Tensor | None,
    kind: str,
    height: int,
    width: int,
    relu: bool,
) -> Tensor:
    """The gradient of the pool's input: g at the maximum, g / 4, or g x / (4 y); zero outside every window."""
    if relu and kind != "max":
        raise RuntimeError(f"pool_backward: expected relu with kind max only, got {kind}")
    shape, layout = (*grad.shape[:2], height, width), pool_layout(grad)
    out = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout).zero_()
    dtype = accumulate_dtype(grad.dtype)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corner = _corner(out, row, column)
        if kind == "max":
            assert argmax is not None
            here = (argmax if relu else argmax & 3) == 2 * row + column
            corner.copy_(torch.where(here, grad, 0))
        elif kind == "average":
            corner.copy_(grad / 4)
        else:
            assert x is not None
            assert y is not None
            corner.copy_(grad.to(dtype) * _corner(x, row, column).to(dtype) / (4 * y.to(dtype)))
    return out


def pick(x: Tensor, argmax: Tensor, relu: bool) -> Tensor:
    """The value of each window at its argmax; with ``relu`` zero unless the maximum is above 0."""
    corners = torch.stack([_corner(x, row, column) for row, column in ((0, 0), (0, 1), (1, 0), (1, 1))])
    picked: Tensor = corners.gather(0, (argmax & 3).long()[None])[0]
    return torch.where(argmax < 4, picked, 0) if relu else picked


def _corner(x: Tensor, row: int, column: int) -> Tensor:
    """The pixel at ``(row, column)`` of every window."""
    return x[..., row : x.shape[2] // 2 * 2 : 2, column : x.shape[3] // 2 * 2 : 2]
