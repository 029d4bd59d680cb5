"""The total variation of an image: the sum of differences between neighboring pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastnst.ops import _library, reference
from fastnst.ops.checks import check_choice, check_feature_map
from fastnst.ops.dtypes import accumulate_dtype

KINDS = ("anisotropic", "isotropic", "squared")


def total_variation(x: Tensor, kind: str = "anisotropic") -> Tensor:
    """Compute the total variation of images, a smoothness penalty.

    With r and d the differences of a pixel to its right and lower neighbor, zero at the border, the sum over pixels of

    - ``|r| + |d|`` for ``"anisotropic"``,
    - ``sqrt(r^2 + d^2)`` for ``"isotropic"`` (Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal
      algorithms", Physica D, 1992),
    - ``r^2 + d^2`` for ``"squared"``.

    The subgradient at a zero difference is zero. On x86 CPUs squares below the smallest normal number count as zero.

    Args:
        x: images ``[B, C, H, W]``, float32, float64, bfloat16 or float16.
        kind: ``"anisotropic"``, ``"isotropic"`` or ``"squared"``.

    Returns:
        A scalar, summed over batch, channels and pixels: float32, or float64 for float64 images. Differentiable twice;
        the second derivative of the isotropic kind is exact where no pixel has two zero differences.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or dtype, or an unknown kind.

    Example:
        >>> import torch
        >>> from fastnst import ops
        >>> ops.total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]]))
        tensor(6.)
    """
    check_feature_map("total_variation", x)
    check_choice("total_variation", "kind", kind, KINDS)
    result: Tensor = torch.ops.fastnst.total_variation(x, kind)
    return result


def _fake(x: Tensor, kind: str) -> Tensor:
    return x.new_empty((), dtype=accumulate_dtype(x.dtype))


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
    """The backward is linear in ``grad``; second derivatives of the total variation have no kernel."""
    grad, x = ctx.saved_tensors
    along, second = reference.total_variation_along(x, h, ctx.kind)
    return along.reshape(grad.shape), (grad * second).to(x.dtype), None


_library.define("total_variation", reference.total_variation, _fake, save=_save, backward=_backward)
_library.define(
    "total_variation_backward",
    reference.total_variation_backward,
    _fake_backward,
    batching="gm-",
    save=_save_backward,
    backward=_double_backward,
)
