"""The total variation of an image and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops.dtypes import accumulate_dtype, without_autocast
from fastnst.ops.reference.tensors import gradient_like


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the right and lower neighbor in the accumulate dtype, zero at the border."""
    x = x.to(accumulate_dtype(x.dtype))
    right = torch.cat([x[..., :, 1:] - x[..., :, :-1], torch.zeros_like(x[..., :, :1])], 3)
    down = torch.cat([x[..., 1:, :] - x[..., :-1, :], torch.zeros_like(x[..., :1, :])], 2)
    return right, down


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
    out = -by_right - by_down
    out[..., :, 1:] += by_right[..., :, :-1]
    out[..., 1:, :] += by_down[..., :-1, :]
    return gradient_like(x, grad * out)
