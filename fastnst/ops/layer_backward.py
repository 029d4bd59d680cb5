"""The backward pass of a layer with losses: style, content and ReLU gradients in one pass, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.autograd_state import mark_written
from fastnst.ops.checks import (
    batch_matrix,
    channel_shift,
    check_device,
    check_dtype_like,
    check_features,
    check_no_overlap,
    check_scale,
    check_shape_like,
    check_tensor,
    position_weight,
)


def layer_backward_(
    grad: Tensor,
    x: Tensor,
    *,
    residual: Tensor | None = None,
    weight: Tensor | None = None,
    style: float = 0.0,
    shift: Tensor | None = None,
    target: Tensor | None = None,
    content: float = 0.0,
    relu: bool = True,
) -> Tensor:
    """Add a layer's style and content gradients to ``grad`` and apply the ReLU's mask, in one pass, in place.

    ``grad = mask(F > 0) * (grad + (style R F + shift) diag(w) + content (F - P))``: eq. 2 and 6 of Gatys, Ecker and
    Bethge, CVPR 2016. For a loss ``a * style_loss(F, A, w, scale) + b * content_loss(F, P)`` pass ``style = 4 * a *
    scale`` and ``content = 2 * b``. A loss of the mean ``F w`` has a gradient ``shift w^T``.

    Args:
        grad: the gradient from the layers above, overwritten; shape, dtype and strides of ``x``.
        x: features F ``[B, C, ...positions]``, the output of the ReLU, contiguous or channels_last.
        residual: R ``[B, C, C]``, symmetric, as :func:`style_loss_and_residual` returns it.
        weight: w, one value per position, broadcastable to ``[B, ...positions]``.
        style: factor of ``R F``.
        shift: one value per channel, ``[B, C]`` or ``[C]``, added at every position before the weights; only together
            with ``residual``.
        target: content features P like ``x``.
        content: factor of ``F - P``.
        relu: whether to apply the mask; False if ``x`` is the output of a convolution or a pool.

    Returns:
        ``grad``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype, device or layout, or one that overlaps grad.
        RuntimeError: an argument requires a gradient; this op is not differentiable.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> ops.layer_backward_(torch.ones(1, 1, 2), torch.tensor([[[-1.0, 3.0]]]))
        tensor([[[0., 1.]]])
    """
    op = "layer_backward_"
    _check_maps(op, grad, x, target)
    residual = None if residual is None else batch_matrix(op, "residual", x, residual)
    flat = position_weight(op, x, weight)
    shift = None if shift is None else channel_shift(op, x, shift, residual)
    read_only = {"x": x, "residual": residual, "weight": weight, "shift": shift, "target": target}
    for name, read in read_only.items():
        check_no_overlap(op, name, read, "grad", grad)
    factors = check_scale(op, "style", style), check_scale(op, "content", content)
    torch.ops.fastnst.layer_backward_(grad, x, residual, flat, factors[0], shift, target, factors[1], relu)
    mark_written(grad)
    return grad


def _check_maps(op: str, grad: Tensor, x: Tensor, target: Tensor | None) -> None:
    check_features(op, "x", x)
    for name, given in (("grad", grad), ("target", target)):
        if given is None and name == "target":
            continue
        other = check_tensor(op, name, given)
        check_shape_like(op, name, other, x)
        check_dtype_like(op, name, other, x)
        check_device(op, name, other, x)
    # The op works in place, so neither map may be copied into another layout.
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
    shift: Tensor | None,
    target: Tensor | None,
    content: float,
    relu: bool,
) -> None:
    return None


_library.define("layer_backward_", reference.layer_backward_, _fake, batching="mmss-sm--")
