"""The average of the images on the way: of steps that hunt about a minimum it shows the middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Average:
    """An exponential moving average with its bias corrected, as Adam has it of gradients (Kingma and Ba 2015).

    After the images x_0 .. x_n it is ``(1 - decay) sum decay^(n-i) x_i / (1 - decay^(n+1))``. With a decay of 0 it is
    the last image, and takes no memory.

    Args:
        image: fixes size, dtype and device.
        decay: in 0..1, what the average keeps of itself when an image is added.
    """

    def __init__(self, image: Tensor, decay: float) -> None:
        self.decay, self.count = decay, 0
        self._sum = torch.zeros_like(image) if decay else None

    def add(self, image: Tensor) -> None:
        """Take in an image."""
        if self._sum is not None:
            self._sum.lerp_(image, 1 - self.decay)
            self.count += 1

    def after(self, image: Tensor) -> Tensor:
        """What the average would be with ``image`` added."""
        if self._sum is None:
            return image
        return self._sum.lerp(image, 1 - self.decay).div_(1 - self.decay ** (self.count + 1))

    def among(self, image: Tensor) -> Tensor:
        """The average with ``image`` among those added; ``image`` itself before there are any."""
        if self._sum is None or self.count == 0:
            return image
        return self._sum / (1 - self.decay**self.count)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes; nothing with a decay of 0."""
        return {} if self._sum is None else {"average": self._sum, "averaged": self.count}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on from the ``state`` of an average of the same decay, if ``memory`` holds one."""
        if self._sum is not None and "average" in memory:
            self._sum.copy_(memory["average"])
            self.count = memory["averaged"]
