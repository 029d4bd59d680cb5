"""A hole in a picture that a run fills: the part of the picture that is computed, and how it is put back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.images import Picture


@dataclass(frozen=True)
class Hole:
    """A window of a picture, and how much of each of its pixels is replaced.

    Attributes:
        picture: the whole picture, the hole filled smoothly.
        top, left: the first row and column of the window.
        weight: ``[1, 1, h, w]`` of the window: 1 inside the hole, 0 outside, values in between where both are mixed.
        bits: bits per channel that hold the levels of the picture, 8 or 16.
    """

    picture: Picture
    top: int
    left: int
    weight: Picture
    bits: int

    def paste(self, image: Tensor) -> Tensor:
        """The whole picture ``[1, 3, H, W]`` with an image ``[1, 3, h, w]`` of the window in its hole.

        Pixels of weight 0 are those of the picture, exactly.
        """
        pixels = self.picture.pixels.clone()
        height, width = image.shape[-2:]
        window = pixels[:, :, self.top : self.top + height, self.left : self.left + width]
        window.copy_(torch.lerp(window, image, self.weight.pixels))
        return pixels


def bits_of(pixels: Tensor) -> int:
    """Bits per channel that hold the levels of ``pixels [1, 3, H, W]`` in 0..1: 8 or 16.

    Example:
        >>> bits_of(torch.tensor([0.0, 7 / 255]).reshape(1, 1, 1, 2)), bits_of(torch.full((1, 1, 1, 1), 0.3001))
        (8, 16)
    """
    for rows in pixels.split(256, 2):
        levels = rows * 255
        if bool(((levels - levels.round()).abs() > 1e-3).any()):
            return 16
    return 8


def smooth_fill(pixels: Tensor, hole: Tensor) -> Tensor:
    """``pixels [1, C, H, W]`` with those where ``hole [1, 1, H, W]`` is True replaced by means of known ones nearby.

    Means are taken over 2 x 2 blocks of known pixels, and of blocks, until a known one is found; smaller blocks are
    interpolated bilinearly from larger ones (pull-push: Gortler, Grzeszczuk, Szeliski and Cohen, "The lumigraph",
    1996). At least one pixel is known.

    Example:
        >>> hole = torch.tensor([[[[False, True, False]]]])
        >>> smooth_fill(torch.tensor([[[[1.0, 0.0, 1.0]]]]), hole).tolist()
        [[[[1.0, 1.0, 1.0]]]]
    """
    known = (~hole).to(pixels)
    return torch.where(hole, _filled(pixels * known, known), pixels)


def _filled(total: Tensor, weight: Tensor) -> Tensor:
    """Means ``total / weight`` where the weight is above zero, interpolated from larger blocks elsewhere."""
    mean = total / weight.clamp(min=1e-12)
    if bool((weight > 0).all()):
        return mean
    smaller = [F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (total, weight)]
    coarse = F.interpolate(_filled(smaller[0], smaller[1]), total.shape[2:], mode="bilinear")
    return torch.where(weight > 0, mean, coarse)


def dilated(weight: Tensor, radius: int) -> Tensor:
    """The largest of ``weight [1, 1, H, W]`` up to ``radius`` rows and columns away."""
    for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        weight = F.max_pool2d(weight, kernel, 1, padding)
    return weight
