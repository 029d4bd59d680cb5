"""Adam for images. PyTorch's own gives the same image, but loads its compiler to do so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**20  # values of an image that are updated together, so that a large one never needs another beside it


class Adam:
    """Kingma and Ba 2015, algorithm 1: the state of one minimisation.

    Args:
        image: the tensor that :meth:`step` will update in place; it fixes size, dtype and device of the moments.
        learning_rate: factor of each step.
        betas, epsilon: decays of the moments, and what is added to the root of the second.
        unit: a factor of the gradients, a power of two, that keeps their squares in range; it changes no step.
    """

    carries: tuple[str, ...] = ("mean", "square", "count")  # what of a `state` serves another size: see `resized`

    def __init__(
        self,
        image: Tensor,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        unit: float = 1.0,
    ) -> None:
        self.learning_rate, self.betas, self.epsilon, self.unit = learning_rate, betas, epsilon * unit, unit
        self.mean = torch.zeros_like(image)
        self.square = torch.zeros_like(image)
        self.count = 0

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes, the tensors not copied."""
        return {"mean": self.mean, "square": self.square, "count": self.count, "learning_rate": self.learning_rate}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on from what ``memory`` holds of a ``state``."""
        if "mean" in memory:
            self.mean.copy_(memory["mean"])
            self.square.copy_(memory["square"])
            self.count = memory["count"]
        self.learning_rate = memory.get("learning_rate", self.learning_rate)

    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given the gradient there."""
        self.count += 1
        self.update(image, gradient, *self.factors(self.count))

    def factors(self, count: int) -> tuple[float, float]:
        """The learning rate and the root of the squares' bias at step ``count``, from 1, both corrected for it."""
        first, second = self.betas
        return self.learning_rate / (1 - first**count), math.sqrt(1 - second**count)

    def update(self, image: Tensor, gradient: Tensor, rate: float | Tensor, width: float | Tensor) -> None:
        """A step with the two factors given, as numbers or as tensors ``[]``, which stay on their device."""
        first, second = self.betas
        parts = (x.view(-1).split(CHUNK) for x in (image, gradient.contiguous(), self.mean, self.square))
        for pixels, slope, mean, square in zip(*parts, strict=True):
            if self.unit != 1:
                slope = slope * self.unit
            mean.lerp_(slope, 1 - first)
            square.mul_(second).addcmul_(slope, slope, value=1 - second)
            root = square.sqrt().div_(width).add_(self.epsilon)
            pixels.sub_((mean * rate).div_(root))


def resized(memory: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """The moments and the count of steps for an image of another size, as style-transfer-pytorch takes them along: the
    first moment by bicubic interpolation, the second by bilinear, which nowhere falls below zero."""
    ways = {"mean": "bicubic", "square": "bilinear"}
    tensors = {name: F.interpolate(memory[name], (height, width), mode=ways[name]) for name in ways if name in memory}
    return {**memory, **tensors}
