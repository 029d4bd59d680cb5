"""Where the frame before says what a frame looks like: reliability of optical flow, and long-term targets.

Ruder, Dosovitskiy and Brox, "Artistic style transfer for videos" (2016), section 3.2, with the coefficients of
Sundaram, Brox and Keutzer (2010), and the smoothing of the program ``consistencyChecker`` of the authors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.film.flow import positions, sample

SMOOTHING = 0.8
"""Standard deviation in pixels of the filter that lowers the weights beside unreliable pixels."""
DISOCCLUDED = -1.0
"""Weight of a disoccluded pixel before the filter: below zero, so that its neighbors are lowered further."""

STILL_CHANGE = 0.5 / 255
"""Mean change of a neighborhood at which it is no longer still."""
STILL_MOTION = 0.25
"""Motion in pixels at which a pixel is no longer still."""
NEAR = 4
"""Radius of the neighborhood in pixels."""


def reliability(backward: Tensor, forward: Tensor) -> Tensor:
    """The weights ``[1, 1, H, W]`` in 0..1 of the pixels of a frame for the temporal loss.

    With the flow ``b`` from the frame to the one before, and ``f`` back from there, a pixel p has the weight 0

    - where it was not visible before: ``|f(p + b) + b|^2 >= 0.01 (|f(p + b)|^2 + |b|^2) + 0.5``, or ``p + b`` is
      outside the frame;
    - at a motion boundary: ``|grad b_x|^2 + |grad b_y|^2 > 0.01 |b|^2 + 0.002``;

    and 1 elsewhere. The weights are then smoothed and clamped.

    Args:
        backward: the flow ``b``, ``[1, 2, H, W]``.
        forward: the flow ``f``, of the same shape.

    Example:
        >>> import torch
        >>> still = torch.zeros(1, 2, 8, 8)
        >>> reliability(still, still).min().item()
        1.0
    """
    height, width = backward.shape[-2:]
    back = sample(forward, backward)
    mismatch = (back + backward).square().sum(1, keepdim=True)
    lengths = backward.square().sum(1, keepdim=True)
    hidden = mismatch >= 0.01 * (lengths + back.square().sum(1, keepdim=True)) + 0.5
    boundary = _gradient_square(backward) > 0.01 * lengths + 0.002
    x, y = positions(backward)
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    weights = torch.ones_like(lengths).masked_fill_(boundary | outside, 0.0).masked_fill_(hidden, DISOCCLUDED)
    return _smoothed(weights).clamp_(0, 1).masked_fill_(outside, 0.0)


def stillness(content: Tensor, before: Tensor, backward: Tensor) -> Tensor:
    """Where nothing moves and nothing changes, ``[1, 1, H, W]`` in 0..1.

    The loss of a frame is never at its minimum, so a picture that is optimized again and again goes on changing also
    where the film does not. Differences are averaged over a neighborhood: the noise of a camera is no change, and a
    slow change of light is one.

    Args:
        content, before: the frame of the film and the one before, ``[1, 3, H, W]`` in 0..1.
        backward: the flow from the frame to the one before.

    Example:
        >>> import torch
        >>> frame = torch.rand(1, 3, 32, 32)
        >>> stillness(frame, frame, torch.zeros(1, 2, 32, 32)).min().item()
        1.0
    """
    change = F.avg_pool2d(F.pad(content - before, (NEAR,) * 4, mode="replicate"), 2 * NEAR + 1, 1)
    still = torch.exp(-(change.abs().amax(1, keepdim=True) / STILL_CHANGE).pow(4))
    still = still * torch.exp(-(backward.square().sum(1, keepdim=True) / STILL_MOTION**2).square())
    return -F.max_pool2d(-still, 2 * NEAR + 1, 1, NEAR)  # not beside what moves


def combine(pictures: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One target and weight for several earlier frames: those further back count where the nearer ones do not.

    The weight of frame j is ``max(c_j - sum_{k < j} c_k, 0)`` (equation 9 of the paper, nearest frame first), and the
    sum of the losses of all frames differs from the loss of the mean of the frames by a constant.

    Args:
        pictures: earlier frames warped to this one, each ``[1, 3, H, W]``, nearest first.
        weights: of each, ``[1, 1, H, W]``.

    Returns:
        The weighted mean ``[1, 3, H, W]``, and the sum of the weights.
    """
    total = torch.zeros_like(weights[0])
    mean, known = torch.zeros_like(pictures[0]), torch.zeros_like(weights[0])
    for picture, weight in zip(pictures, weights, strict=True):
        share = (weight - known).clamp_(min=0)
        known += weight
        mean += share * picture
        total += share
    return torch.where(total > 0, mean / total.clamp(min=1e-12), pictures[0]), total


def _gradient_square(flow: Tensor) -> Tensor:
    """``|grad u|^2 + |grad v|^2`` by central differences, ``[1, 1, H, W]``."""
    padded = F.pad(flow, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (across.square() + down.square()).sum(1, keepdim=True)


def _smoothed(weights: Tensor) -> Tensor:
    """A Gaussian filter over five pixels each way."""
    taps = torch.exp(-torch.arange(-2.0, 3.0).square() / (2 * SMOOTHING**2)).to(weights)
    taps /= taps.sum()
    for axes, kernel in (((2, 2, 0, 0), taps.view(1, 1, 1, 5)), ((0, 0, 2, 2), taps.view(1, 1, 5, 1))):
        weights = F.conv2d(F.pad(weights, axes, mode="replicate"), kernel)
    return weights
