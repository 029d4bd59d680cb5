"""A moving average of the images of a run: for steps that oscillate around a minimum, it is closer to the minimum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Average:
    """An exponential moving average of images with bias correction, as Adam's of gradients (Kingma and Ba 2015).

    After images x_0 .. x_n its value is ``(1 - decay) sum decay^(n-i) x_i / (1 - decay^(n+1))``. With ``decay=0`` it is
    the last image and takes no memory.

    Args:
        image: gives shape, dtype and device.
        decay: in [0, 1), the weight of the previous average when an image is added.
    """

    def __init__(self, image: Tensor, decay: float) -> None:
        self.decay, self.count = decay, 0
        self._sum = torch.zeros_like(image) if decay else None

    def add(self, image: Tensor) -> None:
        """Add an image."""
        if self._sum is not None:
            self._sum.lerp_(image, 1 - self.decay)
            self.count += 1

    def with_image(self, image: Tensor) -> Tensor:
        """The average after adding ``image``; the average itself does not change."""
        if self._sum is None:
            return image
        return self._sum.lerp(image, 1 - self.decay).div_(1 - self.decay ** (self.count + 1))

    def value(self, image: Tensor) -> Tensor:
        """The average of the images added so far; ``image`` if there are none, or with ``decay=0``."""
        if self._sum is None or self.count == 0:
            return image
        return self._sum / (1 - self.decay**self.count)

    def state_dict(self) -> dict[str, Any]:
        """The state, tensors not copied; empty with ``decay=0``."""
        return {} if self._sum is None else {"sum": self._sum, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy the state of an average of the same decay; an empty one changes nothing."""
        if self._sum is not None and "sum" in state:
            self._sum.copy_(state["sum"])
            self.count = state["count"]
