"""The 3 x 3 convolution of VGG with what surrounds it: padding, bias, ReLU and max pool, forward and backward.

On the CPU by Winograd's algorithm F(4 x 4, 3 x 3): a quarter of the multiplications, in float32 (float64 for float64)
whatever the dtype of the features. Elsewhere PyTorch's own convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.errors import nearest
from fastnst.ops import _library, reference

PADDINGS = ("zeros", "replicate")
aten = torch.ops.aten


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False, padding: str = "zeros"
) -> Tensor:
    """``y[k, p] = sum_c,d weight[k, c, d] x[c, p + d] + bias[k]``, d over the nine neighbours; ``max(y, 0)`` with relu.

    Args:
        x: features ``[B, C, H, W]``, float32, float64, bfloat16 or float16; channels_last is not copied.
        weight: ``[K, C, 3, 3]`` of the dtype of ``x``, in any layout; fastest with ``weight.stride(0) == 1``.
        bias: ``[K]`` of the dtype of ``x``, or None.
        relu: whether negative values become zero.
        padding: what lies beyond the border: ``"zeros"``, or ``"replicate"``, the nearest pixel.

    Returns:
        ``[B, K, H, W]`` in the dtype of ``x``, channels_last. Differentiable in ``x``, twice. On CPU the error is that
        of the dtype, times about 2 for float32: see docs/experiments/winograd.md.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype, or an unknown padding.
        RuntimeError: weight or bias want a gradient, which this op does not make: use ``torch.conv2d``.

    Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
    """
    op = "conv3x3"
    _library.check_features(op, "x", x)
    if x.dim() != 4:
        raise ValueError(f"{op}: expected x of shape (B, C, H, W), got {tuple(x.shape)}")
    _library.check_tensor(op, "weight", weight)
    if weight.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(f"{op}: expected weight of shape (K, {x.shape[1]}, 3, 3), got {tuple(weight.shape)}")
    if bias is not None and _library.check_tensor(op, "bias", bias, " or None").shape != weight.shape[:1]:
        raise ValueError(f"{op}: expected bias of shape {(weight.shape[0],)}, got {tuple(bias.shape)}")
    for name, other in (("weight", weight), ("bias", bias)):
        if other is None:
            continue
        if other.dtype != x.dtype:
            raise TypeError(f"{op}: expected {name} of dtype {x.dtype} like x, got {other.dtype}")
        _library.check_device(op, name, other, x)
        if torch.is_grad_enabled() and other.requires_grad:
            raise RuntimeError(f"{op}: {name} has no derivative here; pass {name}.detach(), or use torch.conv2d")
    if padding not in PADDINGS:
        known = ", ".join(PADDINGS)
        raise ValueError(f"{op}: unknown padding {padding!r}{nearest(str(padding), PADDINGS)} (known: {known})")
    offset = None if bias is None else bias.contiguous()
    y: Tensor = torch.ops.fastnst.conv3x3(x, weight, offset, bool(relu), padding)
    return y


def conv3x3_backward(
    grad: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    places: Tensor | None = None,
    size: tuple[int, int],
    padding: str = "zeros",
) -> Tensor:
    """The gradient of a convolution's input ``[B, C, *size]`` from that of its output ``[B, K, *size]``, unchecked.

    With ``places``, ``grad`` is that of a max pool above and ``places`` are what the pool left (see
    :func:`fastnst.ops.pool_and_places`, made of what a ReLU left); with ``mask``, features ``[B, C, *size]``, the
    result is zero where they are not above zero.
    """
    if padding == "zeros":
        below: Tensor = torch.ops.fastnst.conv3x3_backward(grad, weight, mask, places, *size, False)
        return below
    around = torch.ops.fastnst.conv3x3_backward(grad, weight, None, places, *size, True)
    inside = around.new_empty((1,)).expand(*around.shape[:2], *size)  # only its sizes are read
    below = aten.replication_pad2d_backward(around, inside, [1, 1, 1, 1])
    below = reference.channels_last(below)
    return below if mask is None else aten.threshold_backward(below, mask, 0)


def _empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return like.new_empty((like.shape[0], height, width, channels), dtype=dtype).permute(0, 3, 1, 2)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str) -> Tensor:
    return _empty(x, weight.shape[0], x.shape[2], x.shape[3], x.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, relu, ctx.padding = inputs
    ctx.size = (x.shape[2], x.shape[3])
    ctx.save_for_backward(weight, output if relu else None)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    weight, output = ctx.saved_tensors
    if output is not None:
        grad = aten.threshold_backward(grad, output, 0)
    return conv3x3_backward(grad, weight, size=ctx.size, padding=ctx.padding), None, None, None, None


def _fake_backward(
    grad: Tensor, weight: Tensor, mask: Tensor | None, places: Tensor | None, height: int, width: int, border: bool
) -> Tensor:
    more = 2 if border else 0
    return _empty(grad, weight.shape[1], height + more, width + more, grad.dtype)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, mask, places, _, _, ctx.border = inputs
    ctx.save_for_backward(weight, mask, places)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    """The backward is linear in the gradient: its derivative is the convolution."""
    weight, mask, places = ctx.saved_tensors
    if mask is not None:
        h = aten.threshold_backward(h, mask, 0)
    y = torch.ops.fastnst.conv3x3(h, weight, None, False, "zeros")
    if ctx.border:
        y = y[..., 1:-1, 1:-1]
    if places is not None:
        y = reference.pick(y, places, True)
    return y, None, None, None, None, None, None


def _nothing(*args: Any) -> None:
    return None


_library.define("conv3x3", reference.conv3x3, _fake, save=_save, backward=_backward)
_library.define("conv3x3_out", reference.conv3x3_out, _nothing)
_library.define("conv3x3_pool_out", reference.conv3x3_pool_out, _nothing)
_library.define("conv3x3_backward_out", reference.conv3x3_backward_out, _nothing)
_library.define(
    "conv3x3_backward", reference.conv3x3_backward, _fake_backward, save=_save_backward, backward=_double_backward
)
