"""A convolution's bias and the following ReLU in one pass, alone or with the style loss of the result."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.autograd_state import mark_written
from fastnst.ops.checks import (
    batch_matrix,
    check_device,
    check_dtype_like,
    check_features,
    check_no_internal_overlap,
    check_no_overlap,
    check_scale,
    check_tensor,
)
from fastnst.ops.dtypes import accumulate_dtype


def bias_relu_(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias per channel and apply ReLU, in place: ``x = max(x + bias, 0)``; nan is kept.

    Args:
        x: the output of a convolution without bias, ``[B, C, ...positions]``, float32, float64, bfloat16 or float16;
            overwritten. Contiguous and channels_last are fastest.
        bias: one value per channel, ``[C]``, of the dtype of ``x``.

    Returns:
        ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device; elements of ``x`` that share
            memory with one another or with ``bias``.
        RuntimeError: an argument requires a gradient; this op is not differentiable.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> ops.bias_relu_(torch.tensor([[[-2.0, 2.0]]]), torch.ones(1))
        tensor([[[0., 3.]]])
    """
    _check("bias_relu_", x, bias)
    check_no_internal_overlap("bias_relu_", "x", x)
    check_no_overlap("bias_relu_", "bias", bias, "x", x)
    torch.ops.fastnst.bias_relu_(x, bias)
    mark_written(x)
    return x


def bias_relu_style_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``y = max(x + bias, 0)`` and the :func:`style_loss_and_residual` of y in one pass.

    Args:
        x: the output of a convolution without bias, ``[B, C, ...positions]``, float32, float64, bfloat16 or float16;
            not modified.
        bias: one value per channel, ``[C]``, of the dtype of ``x``.
        target: Gram matrices A, ``[B, C, C]`` or ``[C, C]``, of a floating-point dtype.
        scale: factor of the Gram matrix, the one that ``target`` was computed with.

    Returns:
        y in the shape, dtype and memory format of ``x``; the loss, a scalar; and the residual R ``[B, C, C]``. Loss and
        residual are float32, or float64 for float64 features.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.
        RuntimeError: an argument requires a gradient; this op is not differentiable.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> y, loss, residual = ops.bias_relu_style_loss(torch.ones(1, 2, 4, 4), torch.zeros(2), torch.zeros(2, 2))
        >>> y.shape, loss.item(), residual.shape
        (torch.Size([1, 2, 4, 4]), 1024.0, torch.Size([1, 2, 2]))
    """
    op = "bias_relu_style_loss"
    _check(op, x, bias)
    target = batch_matrix(op, "target", x, target)
    scale = check_scale(op, "scale", scale)
    y, loss, residual = torch.ops.fastnst.bias_relu_style_loss(x, bias, target, scale)
    return y, loss, residual


def _check(op: str, x: Tensor, given: object) -> None:
    check_features(op, "x", x)
    bias = check_tensor(op, "bias", given)
    if bias.shape != x.shape[1:2]:
        raise ValueError(f"{op}: expected bias of shape {(x.shape[1],)}, got {tuple(bias.shape)}")
    check_dtype_like(op, "bias", bias, x)
    check_device(op, "bias", bias, x)


def _fake(x: Tensor, bias: Tensor) -> None:
    return None


def _fake_with_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    dtype = accumulate_dtype(x.dtype)
    residual = x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=dtype)
    return torch.empty_like(x), x.new_empty((), dtype=dtype), residual


def _two_ops(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """For devices without the fused kernel: ``bias_relu_`` and ``style_loss`` may still have kernels there."""
    y = torch.empty_like(x).copy_(x)
    torch.ops.fastnst.bias_relu_(y, bias)
    loss, residual = torch.ops.fastnst.style_loss(y, target, None, scale)
    return y, loss, residual


_library.define("bias_relu_", reference.bias_relu_, _fake, batching="mw")
_library.define("bias_relu_style_loss", _two_ops, _fake_with_loss, batching="mws-")
