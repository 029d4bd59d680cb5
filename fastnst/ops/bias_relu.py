"""A convolution's bias and the ReLU after it in one pass, alone or with the style loss of the result."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops._memory import check_apart, check_no_overlap


def bias_relu_(x: Tensor, bias: Tensor) -> Tensor:
    """In place ``x = max(x + bias, 0)``; nan stays.

    Args:
        x: what a convolution without its bias put out, ``[B, C, ...positions]``, float32, float64, bfloat16 or
            float16, overwritten; contiguous and channels_last are fastest.
        bias: one value per channel, ``[C]``, of the dtype of ``x``.

    Returns:
        ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device, elements of ``x`` that share
            memory, or a bias in it.
        RuntimeError: inside autograd: this op has no derivative.
    """
    _check("bias_relu_", x, bias)
    check_no_overlap("bias_relu_", "x", x)
    check_apart("bias_relu_", "bias", bias, "x", x)
    torch.ops.fastnst.bias_relu_(x, bias)
    if not torch.compiler.is_compiling() and not x.is_inference():
        torch.autograd.graph.increment_version(x)  # the op writes behind autograd's back
    return x


def bias_relu_style_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """``y = max(x + bias, 0)``, and the :func:`fastnst.ops.style_loss` and residual of ``y``, in one pass.

    Args:
        x: what a convolution without its bias put out, ``[B, C, ...positions]``, float32, float64, bfloat16 or
            float16; left as it is.
        bias: one value per channel, ``[C]``, of the dtype of ``x``.
        target: Gram matrices A, ``[B, C, C]`` or ``[C, C]``.
        scale: factor of the Gram matrix, the same that made ``target``.

    Returns:
        y, shape, dtype and memory layout of ``x``; the loss, one value; and the residual R ``[B, C, C]``. Loss and
        residual are float32, or float64 for float64 features.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.
        RuntimeError: inside autograd: this op has no derivative.
    """
    op = "bias_relu_style_loss"
    _check(op, x, bias)
    target = _library.batch_matrix(op, "target", x, target)
    scale = _library.check_scale(op, "scale", scale)
    y, loss, residual = torch.ops.fastnst.bias_relu_style_loss(x, bias, target, scale)
    return y, loss, residual


def _check(op: str, x: Tensor, given: object) -> None:
    _library.check_features(op, "x", x)
    bias = _library.check_tensor(op, "bias", given)
    if bias.shape != x.shape[1:2]:
        raise ValueError(f"{op}: expected bias of shape {(x.shape[1],)}, got {tuple(bias.shape)}")
    if bias.dtype != x.dtype:
        raise TypeError(f"{op}: expected bias of dtype {x.dtype} like x, got {bias.dtype}")
    _library.check_device(op, "bias", bias, x)


def _fake(x: Tensor, bias: Tensor) -> None:
    return None


def _fake_with_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    dtype = reference.accumulate_dtype(x.dtype)
    residual = x.new_empty((x.shape[0], x.shape[1], x.shape[1]), dtype=dtype)
    return torch.empty_like(x), x.new_empty((), dtype=dtype), residual


def _in_parts(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where the fused kernel is missing, the style loss may still be one of ours."""
    y = torch.empty_like(x).copy_(x)
    torch.ops.fastnst.bias_relu_(y, bias)
    loss, residual = torch.ops.fastnst.style_loss(y, target, None, scale)
    return y, loss, residual


_library.define("bias_relu_", reference.bias_relu_, _fake)
_library.define("bias_relu_style_loss", _in_parts, _fake_with_loss)
