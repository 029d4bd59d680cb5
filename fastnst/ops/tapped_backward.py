"""The backward of a tapped layer: style, content and ReLU gradients in one pass, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops._memory import check_apart


def tapped_backward_(
    grad: Tensor,
    x: Tensor,
    *,
    residual: Tensor | None = None,
    weight: Tensor | None = None,
    style: float = 0.0,
    target: Tensor | None = None,
    content: float = 0.0,
    relu: bool = True,
) -> Tensor:
    """In place ``grad = mask(F > 0) * (grad + style R F diag(w) + content (F - P))``; every term is optional.

    For a loss ``a * style_loss(F, A, w, scale) + b * content_loss(F, P)`` pass ``style = 4 * a * scale`` and
    ``content = 2 * b``; F is the output of the ReLU, whose sign is its mask.

    Args:
        grad: the gradient that comes from the layers above, overwritten; shape, dtype and strides of ``x``.
        x: features F ``[B, C, ...positions]``, contiguous or channels_last.
        residual: R ``[B, C, C]``, symmetric, as :func:`fastnst.ops.style_loss_and_residual` returns it.
        weight: one value per position, broadcastable to ``[B, ...positions]``.
        style: factor of ``R F diag(w)``.
        target: content features P like ``x``.
        content: factor of ``F - P``.
        relu: apply the mask; False for a tap on a convolution or a pool.

    Returns:
        ``grad``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype, device or layout, or one that shares memory
            with ``grad``.
        RuntimeError: inside autograd: this op is a backward and has no derivative of its own.
    """
    op = "tapped_backward_"
    _library.check_features(op, "x", x)
    for name, given in (("grad", grad), ("target", target)):
        if given is None and name == "target":
            continue
        other = _library.check_tensor(op, name, given)
        if other.shape != x.shape:
            raise ValueError(f"{op}: expected {name} of shape {tuple(x.shape)} like x, got {tuple(other.shape)}")
        if other.dtype != x.dtype:
            raise TypeError(f"{op}: expected {name} of dtype {x.dtype} like x, got {other.dtype}")
        _library.check_device(op, name, other, x)
    _check_layout(op, grad, x)
    if residual is not None:
        residual = _library.batch_matrix(op, "residual", x, residual)
    flat = _library.position_weight(op, x, weight)
    for name, read in (("x", x), ("residual", residual), ("weight", weight), ("target", target)):
        check_apart(op, name, read, "grad", grad)
    torch.ops.fastnst.tapped_backward_(
        grad,
        x,
        residual,
        flat,
        _library.check_scale(op, "style", style),
        target,
        _library.check_scale(op, "content", content),
        relu,
    )
    if not torch.compiler.is_compiling() and not grad.is_inference():
        torch.autograd.graph.increment_version(grad)  # the op writes behind autograd's back
    return grad


def _check_layout(op: str, grad: Tensor, x: Tensor) -> None:
    """Raise unless both are contiguous or both channels_last: the work is done in place, so neither may be copied."""
    if not (x.is_contiguous() or x.movedim(1, -1).is_contiguous()):
        raise ValueError(f"{op}: expected x contiguous or channels_last, got strides {x.stride()}")
    if any(n > 1 and a != b for n, a, b in zip(x.shape, grad.stride(), x.stride(), strict=True)):
        raise ValueError(f"{op}: expected grad with strides {x.stride()} like x, got {grad.stride()}")


def _fake(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    style: float,
    target: Tensor | None,
    content: float,
    relu: bool,
) -> None:
    return None


_library.define("tapped_backward_", reference.tapped_backward_, _fake)
