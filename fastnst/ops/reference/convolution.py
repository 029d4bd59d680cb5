"""The 3 x 3 convolution with padding, bias, ReLU and max pool, and its gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.ops.dtypes import without_autocast
from fastnst.ops.reference.padding import PADDINGS, pad, sides
from fastnst.ops.reference.pooling import pool, pool_backward
from fastnst.ops.reference.tensors import channels_last


@without_autocast
def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str) -> Tensor:
    """The convolution, channels_last, with ``max(y, 0)`` for relu."""
    for side in sides(padding):
        if side not in PADDINGS:
            raise RuntimeError(f"conv3x3: expected padding {', '.join(PADDINGS[:-1])} or {PADDINGS[-1]}, got {side}")
    if x.numel() == 0 or weight.shape[0] == 0:
        y = x.new_zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
        y = y if bias is None else y + bias[:, None, None]
    elif padding == "zeros":
        y = F.conv2d(x, weight, bias, padding=1)
    else:
        y = F.conv2d(pad(x, padding), weight, bias)
    return channels_last(y.relu_() if relu else y)


def conv3x3_out(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str, first: int, out: Tensor
) -> None:
    """Rows ``first`` to ``first + H_out`` of the convolution, where H_out is the height of ``out``."""
    out.copy_(conv3x3(x, weight, bias, relu, padding)[:, :, first : first + out.shape[2]])


def conv3x3_pool_out(
    x: Tensor, weight: Tensor, bias: Tensor, padding: str, first: int, out: Tensor, argmax: Tensor
) -> None:
    """The max pool, with its argmax, of the rows of convolution, bias and ReLU from row ``first``."""
    y, where = pool(conv3x3(x, weight, bias, True, padding)[:, :, first : first + 2 * out.shape[2]], "max")
    out.copy_(y)
    argmax.copy_(where)


@without_autocast
def conv3x3_backward(
    grad: Tensor, weight: Tensor, mask: Tensor | None, argmax: Tensor | None, height: int, width: int, border: bool
) -> Tensor:
    """The gradient of the input, with ``border`` also that of the padding; see :func:`fastnst.ops.conv3x3`."""
    if argmax is not None:
        grad = pool_backward(grad, None, None, argmax, "max", height, width, True)
    extra = 2 if border else 0
    if grad.numel() == 0 or weight.shape[1] == 0:
        inner = grad.new_zeros((grad.shape[0], weight.shape[1], height + extra, width + extra))
    else:
        inner = F.conv_transpose2d(grad, weight, padding=0 if border else 1)
    return channels_last(inner if mask is None else torch.where(mask > 0, inner, 0))


def conv3x3_backward_out(
    grad: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    argmax: Tensor | None,
    height: int,
    width: int,
    border: bool,
    first: int,
    out: Tensor,
) -> None:
    """Rows of the gradient from ``first``, as many as ``out`` has; without ``border`` the padding above is row -1."""
    around = conv3x3_backward(grad, weight, None, argmax, height, width, True)
    inner = around[:, :, first:] if border else around[:, :, first + 1 :, 1:-1]
    inner = inner[:, :, : out.shape[2]]
    out.copy_(inner if mask is None else torch.where(mask > 0, inner, 0))
