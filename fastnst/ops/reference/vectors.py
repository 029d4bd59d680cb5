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
