"""A loss of the pixels themselves: the weighted squared distance to a given image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.devices import wide_dtype
from fastnst.errors import UsageError


@dataclass(frozen=True)
class PixelTarget:
    """``factor / (3 H W) * sum weight (x - target)^2`` over the values x of an image in 0..255.

    This is the temporal loss of Ruder, Dosovitskiy and Brox, "Artistic style transfer for videos" (2016), equation 7,
    with the factor gamma: the target is the frame before, warped by the optical flow, and the weight is 0 where the
    flow is not reliable.

    Args:
        target: ``[1, 3, H, W]`` in 0..255, in the dtype and on the device of the images to compare.
        weight: ``[1, 1, H, W]``, not negative.
        factor: the weight of the loss.

    Raises:
        UsageError: shapes that do not match.
    """

    target: Tensor
    weight: Tensor
    factor: float

    def __post_init__(self) -> None:
        if self.target.dim() != 4 or self.weight.shape != (1, 1, *self.target.shape[2:]):
            shapes = f"{tuple(self.target.shape)} and {tuple(self.weight.shape)}"
            raise UsageError(f"expected a target [1, 3, H, W] and a weight [1, 1, H, W], got shapes {shapes}")

    def transposed(self) -> PixelTarget:
        """The target for transposed images."""
        return replace(self, target=self.target.mT, weight=self.weight.mT)

    def extended(self, below: int, right: int) -> PixelTarget:
        """The same loss for images with more rows and columns, which have no weight."""
        padding = (0, right, 0, below)
        target, weight = F.pad(self.target, padding), F.pad(self.weight, padding)
        return PixelTarget(target, weight, self.factor * target.numel() / self.target.numel())

    @torch.no_grad()
    def add_gradient_(self, gradient: Tensor, image: Tensor, rows: slice = slice(None)) -> Tensor:
        """Add the gradient at ``image`` to ``gradient``, in place, and return the value ``[]``, for some rows alone."""
        scale = self.factor / self.target.numel()
        difference = image[:, :, rows] - self.target[:, :, rows]
        weighted = difference * self.weight[:, :, rows]
        gradient[:, :, rows].add_(weighted, alpha=2 * scale)
        return weighted.mul_(difference).sum(dtype=wide_dtype(image.device)) * scale
