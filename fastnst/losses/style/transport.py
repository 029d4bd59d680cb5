"""Style losses that compare the distributions of features projected onto lines, by sorting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from fastnst.devices import wide_dtype
from fastnst.losses.base import StyleLoss, Target
from fastnst.losses.style.base import CHUNK, KnownGradientLoss
from fastnst.ops.dtypes import accumulate_dtype
from fastnst.ops.reference import resample

PROJECTED = 2**23  # values that are projected at a time
LINES = 16  # that are projected at a time, at least: products of few lines are slow, and threads share the lines


class LineLoss(KnownGradientLoss):
    """The mean squared Wasserstein-2 distance of features projected onto K lines.

    ``1 / K * sum_k sum_i w_i (p_ki - q_k(t_ki))^2``, where ``p_k = d_k^T F`` are the features projected onto direction
    ``d_k``, ``q_k`` is the style's quantile function along it and ``t_ki`` in 0..1 the rank of ``p_ki``. The weights w
    default to ``1 / N``. Quantiles are interpolated linearly between the style's sorted values, so that style and
    content may differ in size. The derivative treats ranks and quantiles as constant, which is exact where all values
    differ.

    Memory is needed for the gradient in the accumulate dtype, and for a copy of features of another dtype. Projections
    onto directions are made and sorted for at most ``2^23`` values, or 16 lines, at a time, by
    ``torch.ops.fastnst.quantile_residual_``.
    """

    @abstractmethod
    def directions(self, x: Tensor) -> Tensor | None:
        """Return unit vectors ``[1, K, C]`` in the accumulate dtype of features ``x``; None for the axes."""

    def target(self, x: Tensor, weight: Tensor | None = None) -> Target:
        """Return the style's sorted projections ``[1, K, N]``, and the directions unless they are the axes.

        With a weight, return quantiles at as many evenly spaced ranks as there are positive weights.
        """
        directions, f = self.directions(x), _flat(x)
        w = None
        if weight is not None:
            w = weight.flatten()
            positive = w > 0
            f, w = f[:, positive], w[positive].to(wide_dtype(w.device))
        parts, axes = [], f if directions is None else directions[0]
        for lines in axes.split(max(CHUNK // max(f.shape[1], 1), 1)):
            values, order = (lines if directions is None else lines @ f).sort(1)
            parts.append(values if w is None else _at_even_ranks(values, w[order]))
        kept = torch.cat(parts)[None]
        return (kept,) if directions is None else (kept, directions)

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        """Return the mean of the quantile functions along each line: the Wasserstein barycenter."""
        count = max(quantiles.shape[2] for quantiles, *_ in targets)
        even = [(resample(quantiles[0], count)[None],) for quantiles, *_ in targets]
        return *StyleLoss.blend(self, even, weights), *targets[0][1:]

    def value_and_gradient(self, x: Tensor, target: Target, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        quantiles, directions = target[0][0], target[1] if len(target) > 1 else None
        f, factor = _flat(x), 2 / quantiles.shape[0]
        w = None if weight is None else weight.flatten().to(f.dtype)
        residual = torch.ops.fastnst.quantile_residual_
        if directions is None:
            gradient = f.clone() if f.dtype == x.dtype else f
            values = residual(gradient, quantiles, w, factor)
        else:
            gradient, parts = torch.empty_like(f), []
            step = max(PROJECTED // max(f.shape[1], 1), LINES)
            for lines, along in zip(quantiles.split(step), directions[0].split(step), strict=True):
                p = along @ f
                parts.append(residual(p, lines, w, factor))
                gradient = gradient.addmm_(along.T, p) if len(parts) > 1 else torch.mm(along.T, p, out=gradient)
            values = torch.cat(parts)
        return values.mean(), gradient.to(x.dtype).reshape(x.shape)


class Sliced(LineLoss):
    """The sliced Wasserstein distance: :class:`LineLoss` with random directions.

    Heitz, Vanhoey, Chambon and Belcour, "A sliced Wasserstein loss for neural texture synthesis", CVPR 2021. The paper
    draws new directions at each step; here they are drawn once, so that L-BFGS minimizes one function and runs are
    reproducible.

    Args:
        count: number of directions; None for the number of channels.
        seed: seed of the random directions.
    """

    def __init__(self, count: int | None = None, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def directions(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        shape, generator = (1, self.count or channels, channels), torch.Generator("cpu").manual_seed(self.seed)
        drawn = torch.randn(shape, dtype=torch.float64, device="cpu", generator=generator)
        return torch.nn.functional.normalize(drawn, dim=2).to(x.device, accumulate_dtype(x.dtype))


class Histogram(LineLoss):
    """The distance to features whose channels have the style's histograms: :class:`LineLoss` along the axes.

    ``1 / (C N) * |F - R(F)|^2``, where R matches the histogram of each channel to the style's and is constant in the
    derivative: Risser, Wilmot and Barnes, "Stable and controllable neural texture synthesis and style transfer using
    histogram losses", 2017, with a mean instead of a sum. They match binned histograms; here R is exact, by ranks.
    """

    def directions(self, x: Tensor) -> None:
        return None


def _flat(x: Tensor) -> Tensor:
    """``x`` as ``[C, N]`` in the accumulate dtype."""
    return x.flatten(2)[0].to(accumulate_dtype(x.dtype))


def _at_even_ranks(values: Tensor, shares: Tensor) -> Tensor:
    """Interpolate sorted values ``[k, n]`` with weights ``shares`` at n evenly spaced ranks."""
    ranks = shares.cumsum(1) - shares / 2
    count = values.shape[1]
    wanted = ((torch.arange(count, device=values.device, dtype=ranks.dtype) + 0.5) / count).expand_as(ranks)
    above = torch.searchsorted(ranks, wanted.contiguous()).clamp(min(1, count - 1), count - 1)
    below = (above - 1).clamp_min(0)
    begin, end = ranks.gather(1, below), ranks.gather(1, above)
    part = ((wanted - begin) / torch.where(end > begin, end - begin, 1)).clamp(0, 1)
    low, high = values.gather(1, below), values.gather(1, above)
    return (low + part * (high - low)).to(values.dtype)
