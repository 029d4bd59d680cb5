"""Total variation of an image: what keeps it free of speckle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.errors import nearest
from fastnst.ops import _library, reference

KINDS = ("anisotropic", "isotropic", "squared")


def total_variation(x: Tensor, kind: str = "anisotropic") -> Tensor:
    """Sum over pixels of ``|r| + |d|``, ``sqrt(r^2 + d^2)`` or ``r^2 + d^2``.

    r and d are the differences to the right and lower neighbour, zero across the border (Rudin, Osher, Fatemi 1992 for
    the isotropic form). Where a difference is zero its derivative is taken as zero.

    Args:
        x: images ``[B, C, H, W]``, float32, float64, bfloat16 or float16.
        kind: ``"anisotropic"``, ``"isotropic"`` or ``"squared"``.

    Returns:
        One value, summed over batch, channels and pixels, float32, or float64 for float64 images. Differentiable
        twice; the second derivative of the isotropic form is exact where no pixel is flat.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype, or an unknown kind.
    """
    _library.check_features("total_variation", "x", x)
    if x.dim() != 4:
        raise ValueError(f"total_variation: expected x of shape (B, C, H, W), got {tuple(x.shape)}")
    if kind not in KINDS:
        raise ValueError(
            f"total_variation: unknown kind {kind!r}{nearest(str(kind), KINDS)} (known: {', '.join(KINDS)})"
        )
    result: Tensor = torch.ops.fastnst.total_variation(x, kind)
    return result


def _fake(x: Tensor, kind: str) -> Tensor:
    return x.new_empty((), dtype=reference.accumulate_dtype(x.dtype))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.kind = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    return torch.ops.fastnst.total_variation_backward(grad, x, ctx.kind), None


def _fake_backward(grad: Tensor, x: Tensor, kind: str) -> Tensor:
    return torch.empty_like(x)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, ctx.kind = inputs
    ctx.save_for_backward(grad, x)


def _double_backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor, None]:
    """Through the reference, whose derivative PyTorch knows: second derivatives of TV are not worth a kernel."""
    grad, x = ctx.saved_tensors
    x = x if x.requires_grad else x.detach().requires_grad_()
    with torch.enable_grad():
        value = reference.total_variation(x, ctx.kind)
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        along = (first.to(grad.dtype) * h.to(grad.dtype)).sum()
        (second,) = torch.autograd.grad(along, x, create_graph=True, allow_unused=True, materialize_grads=True)
    return along.reshape(grad.shape), (grad * second.to(grad.dtype)).to(x.dtype), None


_library.define("total_variation", reference.total_variation, _fake, save=_save, backward=_backward)
_library.define(
    "total_variation_backward",
    reference.total_variation_backward,
    _fake_backward,
    save=_save_backward,
    backward=_double_backward,
)
