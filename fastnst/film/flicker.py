"""How much a film flickers: the warping error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastnst.film.flow import warp


def warping_error(frames: Sequence[Tensor], flows: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
    """The mean squared difference between each frame and the last one warped to it, where the flow is reliable.

    ``mean_t sum w_t |x_t - warp(x_{t-1})|^2 / (3 sum w_t)``: the warping error of Lai et al., "Learning blind video
    temporal consistency" (2018), with weights.

    Args:
        frames: each ``[1, 3, H, W]`` in 0..1; two at least.
        flows: from each frame but the first to the one before, ``[1, 2, H, W]``.
        weights: of each frame but the first, ``[1, 1, H, W]``.

    Example:
        >>> import torch
        >>> frame = torch.rand(1, 3, 16, 16)
        >>> warping_error([frame, frame + 0.1], [torch.zeros(1, 2, 16, 16)], [torch.ones(1, 1, 16, 16)]) < 0.011
        True
    """
    errors = []
    for before, frame, flow, weight in zip(frames[:-1], frames[1:], flows, weights, strict=True):
        apart = (frame - warp(before, flow)).square() * weight
        errors.append(apart.sum() / (3 * weight.sum()).clamp(min=1e-12))
    return float(torch.stack(errors).mean())
