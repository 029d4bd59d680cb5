"""The scalar product in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops.reference.adam import CHUNK


def dot(x: Tensor, y: Tensor) -> Tensor:
    """``sum x y`` of two vectors in float64, without a copy of a whole vector."""
    if x.dim() != 1 or x.shape != y.shape or x.dtype != y.dtype:
        raise RuntimeError(f"dot: expected y of shape {tuple(x.shape)} like x, of its dtype, got {tuple(y.shape)}")
    parts = [(a.double() * b.double()).sum() for a, b in zip(x.split(CHUNK), y.split(CHUNK), strict=True)]
    return torch.stack(parts).sum()


def lbfgs_direction_(direction: Tensor, pairs: Tensor, slots: Tensor, curvatures: Tensor, scale: float) -> None:
    """The two-loop recursion, in place; a vector of the history is widened when it is used."""
    used = list(zip(slots.tolist(), curvatures.tolist(), strict=True))
    alphas = []
    for slot, curvature in used:
        alpha = pairs[slot, 0].to(direction.dtype).dot(direction).div_(curvature)
        direction.addcmul_(pairs[slot, 1].to(direction.dtype), alpha, value=-1)
        alphas.append(alpha)
    direction.mul_(scale)
    for slot, curvature in reversed(used):
        beta = pairs[slot, 1].to(direction.dtype).dot(direction).div_(curvature)
        direction.addcmul_(pairs[slot, 0].to(direction.dtype), alphas.pop().sub_(beta))
