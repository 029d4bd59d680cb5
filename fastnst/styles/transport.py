"""Style losses that compare whole distributions along lines, by sorting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fastnst.ops.reference import accumulate_dtype
from fastnst.styles.base import CHUNK, FeatureLoss, StyleLoss, Target, with_gradient


class LineLoss(FeatureLoss):
    """``1 / K * sum_k sum_i w_i (p_ki - q_k(t_ki))^2``: squared Wasserstein-2 distances along K lines.

    ``p_k = d_k^T F`` are the features along a line of direction ``d_k``, ``q_k`` the style's quantile function along it
    and ``t_ki`` the rank of ``p_ki``, between 0 and 1. The weights w are ``1 / N`` unless others are given. Quantiles
    are interpolated linearly between the style's sorted values, so style and content may have any sizes. The derivative
    holds ranks and quantiles constant; that is exact wherever no two values are equal.

    A chunk of lines is sorted at a time. Beside the features there are two float32 maps, or float64 for float64.
    """

    @abstractmethod
    def directions(self, x: Tensor) -> Tensor | None:
        """Unit vectors ``[1, K, C]`` for features ``x`` in float32 or float64; None for the axes."""

    def target(self, x: Tensor, weight: Tensor | None = None) -> Target:
        """The style's sorted values along each line ``[1, K, N]``, and the directions.

        With a weight they are quantiles at as many ranks as there are positions above zero.
        """
        directions, f = self.directions(x), _flat(x)
        w = None
        if weight is not None:
            w = weight.flatten()
            above = w > 0
            f, w = f[:, above], w[above].double()
        parts = []
        for _, p in _along(f, directions):
            values, order = p.sort(1)
            parts.append(values if w is None else _evened(values, w[order]))
        kept = torch.cat(parts)[None]
        return (kept,) if directions is None else (kept, directions)

    def loss(self, x: Tensor, target: Target, weight: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            value, gradient = self._value_and_gradient(x.detach(), target, weight)
        return with_gradient(x, value, gradient)

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        """Quantile functions averaged line by line: the Wasserstein barycentre along each."""
        count = max(quantiles.shape[2] for quantiles, *_ in targets)
        even = [(_resampled(quantiles[0], count)[None],) for quantiles, *_ in targets]
        return *StyleLoss.blend(self, even, weights), *targets[0][1:]

    def _value_and_gradient(self, x: Tensor, target: Target, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        quantiles, directions = target[0][0], target[1] if len(target) > 1 else None
        f = _flat(x)
        lines, positions = quantiles.shape[0], f.shape[1]
        gradient, value = torch.zeros_like(f), f.new_zeros((), dtype=torch.float64)
        w = None if weight is None else weight.flatten().double()
        for some, p in _along(f, directions):
            values, order = p.sort(1)
            if w is None:
                apart = values - _resampled(quantiles[some], positions)
                pulled = apart / positions
            else:
                share = w[order]
                apart = values - _at(quantiles[some], share.cumsum(1) - share / 2).to(f.dtype)
                pulled = share.to(f.dtype) * apart
            value += (pulled * apart).sum(dtype=torch.float64)
            along = torch.empty_like(p).scatter_(1, order, pulled)
            if directions is None:
                gradient[some] += along
            else:
                gradient.addmm_(directions[0, some].T, along)
        gradient *= 2 / lines
        return (value / lines).to(f.dtype), gradient.to(x.dtype).reshape(x.shape)


class Sliced(LineLoss):
    """Sliced Wasserstein distance (Heitz, Vanhoey, Chambon and Belcour 2021).

    As many random directions as channels, unless ``count`` says otherwise. The paper draws them anew at each step; here
    they are drawn once, from ``seed``, so that the loss is one function, which L-BFGS needs, and runs repeat.
    """

    def __init__(self, count: int | None = None, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def directions(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        shape, generator = (1, self.count or channels, channels), torch.Generator("cpu").manual_seed(self.seed)
        drawn = torch.randn(shape, dtype=torch.float64, device="cpu", generator=generator)
        return torch.nn.functional.normalize(drawn, dim=2).to(x.device, accumulate_dtype(x.dtype))


class Histogram(LineLoss):
    """``1 / (C N) * |F - R(F)|^2``, where R gives each channel the style's histogram.

    Risser, Wilmot and Barnes 2017, with a mean in place of the sum; R is constant in the derivative. They match binned
    histograms; here R is exact, by ranks. It is the sliced distance along the axes.
    """

    def directions(self, x: Tensor) -> None:
        return None


def _flat(x: Tensor) -> Tensor:
    """``[C, N]`` in float32 or float64."""
    return x.flatten(2)[0].to(accumulate_dtype(x.dtype))


def _along(f: Tensor, directions: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Some lines at a time: which, and the features along them ``[k, N]``."""
    lines = f.shape[0] if directions is None else directions.shape[1]
    step = max(CHUNK // max(f.shape[1], 1), 1)
    for begin in range(0, lines, step):
        some = slice(begin, min(begin + step, lines))
        yield some, f[some].contiguous() if directions is None else directions[0, some] @ f


def _resampled(quantiles: Tensor, count: int) -> Tensor:
    """Quantiles ``[k, n]`` at ``count`` even ranks, the middles of as many parts of 0..1."""
    if quantiles.shape[1] == count:
        return quantiles
    ranks = (torch.arange(count, device=quantiles.device, dtype=torch.float64) + 0.5) / count
    return _at(quantiles, ranks.expand(quantiles.shape[0], count)).to(quantiles.dtype)


def _at(quantiles: Tensor, ranks: Tensor) -> Tensor:
    """Quantiles ``[k, n]`` at ranks ``[k, m]`` in 0..1, linear between the middles of n even parts."""
    last = quantiles.shape[1] - 1
    place = (ranks * (last + 1) - 0.5).clamp(0, last)
    below = place.long()
    low, high = quantiles.gather(1, below), quantiles.gather(1, (below + 1).clamp_max(last))
    return low + (place - below) * (high - low)


def _evened(values: Tensor, shares: Tensor) -> Tensor:
    """Sorted values ``[k, n]`` that weigh ``shares``, at n even ranks."""
    ranks = shares.cumsum(1) - shares / 2
    count = values.shape[1]
    wanted = ((torch.arange(count, device=values.device, dtype=ranks.dtype) + 0.5) / count).expand_as(ranks)
    above = torch.searchsorted(ranks, wanted.contiguous()).clamp(min(1, count - 1), count - 1)
    below = (above - 1).clamp_min(0)
    begin, end = ranks.gather(1, below), ranks.gather(1, above)
    part = ((wanted - begin) / torch.where(end > begin, end - begin, 1)).clamp(0, 1)
    low, high = values.gather(1, below), values.gather(1, above)
    return (low + part * (high - low)).to(values.dtype)
