"""The 3 x 3 convolution of VGG with padding, bias, ReLU and max pool, forward and backward.

On the CPU by Winograd's algorithm F(4 x 4, 3 x 3), which needs a quarter of the multiplications, in float32 (float64
for float64) whatever the features' dtype. On other devices by PyTorch's convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import check_choice, check_device, check_dtype_like, check_feature_map, check_tensor

PADDINGS = reference.PADDINGS
aten = torch.ops.aten


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False, padding: str = "zeros"
) -> Tensor:
    """Convolve with 3 x 3 kernels, stride 1 and a padding of 1, optionally followed by ReLU.

    ``y[k, p] = sum_cd weight[k, c, d] x[c, p + d] + bias[k]``, d over the nine offsets, by the algorithm of Lavin and
    Gray, "Fast algorithms for convolutional neural networks", CVPR 2016. The error on CPU is that of the dtype, times
    about 2 for float32: docs/experiments/winograd.md.

    Args:
        x: features ``[B, C, H, W]``, float32, float64, bfloat16 or float16; channels_last is not copied.
        weight: ``[K, C, 3, 3]`` of the dtype of ``x``, in any layout; fastest with ``weight.stride(0) == 1``.
        bias: ``[K]`` of the dtype of ``x``, or None.
        relu: whether to apply ReLU.
        padding: what surrounds the map: ``"zeros"``; ``"replicate"``, the nearest pixel; ``"circular"``, the pixels of
            the opposite side; ``"reflect"``, the map mirrored at its outermost pixels; or two of these names for rows
            and for columns, such as ``"zeros,circular"``.

    Returns:
        ``[B, K, H, W]`` in the dtype of ``x``, channels_last. Differentiable twice with respect to ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype, or an unknown padding.
        RuntimeError: weight or bias requires a gradient, which ``torch.nn.functional.conv2d`` gives.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> ops.conv3x3(torch.rand(1, 3, 8, 8), torch.rand(16, 3, 3, 3), torch.zeros(16), relu=True).shape
        torch.Size([1, 16, 8, 8])
    """
    _check(x, weight, bias, padding)
    offset = None if bias is None else bias.contiguous()
    y: Tensor = torch.ops.fastnst.conv3x3(x, weight, offset, bool(relu), padding)
    return y


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, padding: str) -> None:
    op = "conv3x3"
    check_feature_map(op, x)
    check_tensor(op, "weight", weight)
    if weight.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(f"{op}: expected weight of shape (K, {x.shape[1]}, 3, 3), got {tuple(weight.shape)}")
    if bias is not None and check_tensor(op, "bias", bias, " or None").shape != weight.shape[:1]:
        raise ValueError(f"{op}: expected bias of shape {(weight.shape[0],)}, got {tuple(bias.shape)}")
    for name, other in (("weight", weight), ("bias", bias)):
        if other is None:
            continue
        check_dtype_like(op, name, other, x)
        check_device(op, name, other, x)
    for side in reference.sides(padding) if isinstance(padding, str) else [padding]:
        check_choice(op, "padding", side, PADDINGS)


def conv3x3_backward(
    grad: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    argmax: Tensor | None = None,
    size: tuple[int, int],
    padding: str = "zeros",
) -> Tensor:
    """Compute the gradient of a convolution's input from that of its output. Arguments are not checked.

    Args:
        grad: the gradient of the output, ``[B, K, *size]``; with ``argmax`` that of the max pool of the output.
        weight: ``[K, C, 3, 3]`` of the dtype of ``grad``.
        mask: features ``[B, C, *size]``; the result is zero where they are not above zero.
        argmax: what :func:`pool_with_argmax` returned for the output after its ReLU.
        size: height and width of the input.
        padding: the padding of the convolution.

    Returns:
        The gradient of the input, ``[B, C, *size]``, in the dtype of ``grad``.
    """
    if padding == "zeros":
        inner: Tensor = torch.ops.fastnst.conv3x3_backward(grad, weight, mask, argmax, *size, False)
        return inner
    padded = torch.ops.fastnst.conv3x3_backward(grad, weight, None, argmax, *size, True)
    inner = reference.channels_last(reference.fold(padded, padding))
    return inner if mask is None else aten.threshold_backward(inner, mask, 0)


def _empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return like.new_empty((like.shape[0], height, width, channels), dtype=dtype).permute(0, 3, 1, 2)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str) -> Tensor:
    return _empty(x, weight.shape[0], x.shape[2], x.shape[3], x.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, relu, ctx.padding = inputs
    _refuse(ctx, "weight", "bias")
    ctx.size = (x.shape[2], x.shape[3])
    ctx.save_for_backward(weight, output if relu else None)


def _refuse(ctx: Any, *names: str) -> None:
    """Raise if a parameter after the first requires a gradient, which this op does not compute."""
    for name, wanted in zip(names, ctx.needs_input_grad[1:], strict=False):
        if wanted:
            raise RuntimeError(f"conv3x3: {name} has no derivative here; pass {name}.detach(), or use torch.conv2d")


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    weight, output = ctx.saved_tensors
    if output is not None:
        grad = aten.threshold_backward(grad, output, 0)
    return conv3x3_backward(grad, weight, size=ctx.size, padding=ctx.padding), None, None, None, None


def _fake_backward(
    grad: Tensor, weight: Tensor, mask: Tensor | None, argmax: Tensor | None, height: int, width: int, border: bool
) -> Tensor:
    extra = 2 if border else 0
    return _empty(grad, weight.shape[1], height + extra, width + extra, grad.dtype)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _refuse(ctx, "weight")
    _, weight, mask, argmax, _, _, ctx.border = inputs
    ctx.save_for_backward(weight, mask, argmax)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    """The backward is linear in ``grad``, so its adjoint is the convolution."""
    weight, mask, argmax = ctx.saved_tensors
    if mask is not None:
        h = aten.threshold_backward(h, mask, 0)
    y = torch.ops.fastnst.conv3x3(h, weight, None, False, "zeros")
    if ctx.border:
        y = y[..., 1:-1, 1:-1]
    if argmax is not None:
        y = reference.pick(y, argmax, True)
    return y, None, None, None, None, None, None


def _fake_in_place(*args: Any) -> None:
    return None


_library.define("conv3x3", reference.conv3x3, _fake, batching="mww--", save=_save, backward=_backward)
_library.define("conv3x3_out", reference.conv3x3_out, _fake_in_place)
_library.define("conv3x3_pool_out", reference.conv3x3_pool_out, _fake_in_place)
_library.define("conv3x3_backward_out", reference.conv3x3_backward_out, _fake_in_place)
_library.define(
    "conv3x3_backward",
    reference.conv3x3_backward,
    _fake_backward,
    batching="mwmm---",
    save=_save_backward,
    backward=_double_backward,
)
