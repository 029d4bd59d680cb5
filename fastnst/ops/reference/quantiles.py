"""The distance of rows to quantiles in plain PyTorch, and interpolation between quantiles."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.devices import wide_dtype

CHUNK = 2**22  # values that are sorted at a time


def quantile_residual_(x: Tensor, quantiles: Tensor, weight: Tensor | None, factor: float) -> Tensor:
    """Overwrite rows x ``[K, N]`` with ``factor * w * (x - q)``; return ``sum w (x - q)^2`` of each row.

    Quantiles q are taken from the ``[K, n]`` of a sorted row at the ranks of x; w is the weight, or ``1 / N``.
    """
    step = max(CHUNK // max(x.shape[1], 1), 1)
    sums = [_residual_(*part, weight, factor) for part in zip(x.split(step), quantiles.split(step), strict=True)]
    return torch.cat(sums)


def _residual_(x: Tensor, quantiles: Tensor, weight: Tensor | None, factor: float) -> Tensor:
    values, order = x.sort(dim=1, stable=True)
    wide = wide_dtype(x.device)
    if weight is None:
        difference = values - resample(quantiles, x.shape[1])
        by_value = difference / max(x.shape[1], 1)
    else:
        share = weight.to(wide)[order]
        difference = values - at_ranks(quantiles, share.cumsum(1) - share / 2).to(x.dtype)
        by_value = share.to(x.dtype) * difference
    sums = (by_value * difference).sum(1, dtype=wide)
    x.scatter_(1, order, by_value.mul_(factor))
    return sums


def resample(quantiles: Tensor, count: int) -> Tensor:
    """Interpolate quantiles ``[k, n]`` at ``count`` ranks, the centers of equal intervals of 0..1."""
    if quantiles.shape[1] == count:
        return quantiles
    device = quantiles.device
    ranks = (torch.arange(count, device=device, dtype=wide_dtype(device)) + 0.5) / count
    return at_ranks(quantiles, ranks.expand(quantiles.shape[0], count)).to(quantiles.dtype)


def at_ranks(quantiles: Tensor, ranks: Tensor) -> Tensor:
    """Interpolate quantiles ``[k, n]``, which lie at the centers of n equal intervals of 0..1, at ranks ``[k, m]``."""
    last = quantiles.shape[1] - 1
    index = (ranks * (last + 1) - 0.5).clamp(0, last)
    below = index.long().clamp_max_(last)  # float32 may round above it
    low, high = quantiles.gather(1, below), quantiles.gather(1, (below + 1).clamp_max(last))
    return low + (index - below) * (high - low)
