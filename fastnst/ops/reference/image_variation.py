"""The total variation of an image and its gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.ops.dtypes import accumulate_dtype, without_autocast
from fastnst.ops.reference.tensors import gradient_like


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the right and lower neighbor in the accumulate dtype, zero at the border."""
    x = x.to(accumulate_dtype(x.dtype))
    right = torch.cat([x[..., :, 1:] - x[..., :, :-1], torch.zeros_like(x[..., :, :1])], 3)
    down = torch.cat([x[..., 1:, :] - x[..., :-1, :], torch.zeros_like(x[..., :1, :])], 2)
    return right, down


def _adjoint(right: Tensor, down: Tensor) -> Tensor:
    """The transpose of :func:`_differences`, applied to their cotangents."""
    # The last column of `right` and the last row of `down` belong to differences that are zero by definition.
    right, down = F.pad(right[..., :-1], (1, 1)), F.pad(down[..., :-1, :], (0, 0, 1, 1))
    return right[..., :-1] - right[..., 1:] + down[..., :-1, :] - down[..., 1:, :]


@without_autocast
def total_variation(x: Tensor, kind: str) -> Tensor:
    """The sum over pixels of ``|r| + |d|``, ``sqrt(r^2 + d^2)`` or ``r^2 + d^2``."""
    right, down = _differences(x)
    if kind == "anisotropic":
        return (right.abs() + down.abs()).sum()
    energy = right.square() + down.square()
    if kind == "squared":
        return energy.sum()
    # The inner where keeps the derivative of sqrt finite at zero differences, whose subgradient is zero.
    flat = energy == 0
    return torch.where(flat, 0, torch.where(flat, 1, energy).sqrt()).sum()


@without_autocast
def total_variation_backward(grad: Tensor, x: Tensor, kind: str) -> Tensor:
    """The derivative of :func:`total_variation`, zero where a difference is zero."""
    right, down = _differences(x)
    if kind == "anisotropic":
        by_right, by_down = right.sign(), down.sign()
    elif kind == "squared":
        by_right, by_down = 2 * right, 2 * down
    else:
        length = (right.square() + down.square()).sqrt()
        safe = torch.where(length == 0, 1, length)
        by_right, by_down = right / safe, down / safe
    return gradient_like(x, grad * _adjoint(by_right, by_down))


@without_autocast
def total_variation_along(x: Tensor, h: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The first derivative along ``h``, a scalar, and the product of the second derivative and ``h``."""
    (right, down), (h_right, h_down) = _differences(x), _differences(h)
    if kind == "anisotropic":
        along = right.sign() * h_right + down.sign() * h_down
        return along.sum(), torch.zeros_like(along)
    if kind == "squared":
        return 2 * (right * h_right + down * h_down).sum(), 2 * _adjoint(h_right, h_down)
    energy = right.square() + down.square()
    inverse = torch.where(energy == 0, 0, torch.where(energy == 0, 1, energy).rsqrt())
    right, down = right * inverse, down * inverse
    along = right * h_right + down * h_down
    return along.sum(), _adjoint(inverse * (h_right - along * right), inverse * (h_down - along * down))
