"""L-BFGS in coordinates in which broad changes of an image come as easily as fine ones.

A style transfer's gradient asks for change at every width, but L-BFGS starts from the belief that every direction bends
alike, and needs many steps to find out about the broad ones. So the image is x = A z, and L-BFGS works on z: A weights
each frequency f (in cycles per pixel) by (f / MIDDLE)^-POWER, no frequency as lower than LOWEST. A is symmetric, so the
gradient in z is A times the gradient in x, and z itself is never needed. The loss and its minima are the same.
``docs/experiments/time_to_loss.md`` has what it gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastnst.lbfgs import LBFGS

POWER = 0.5
MIDDLE = 0.1  # whose weight is 1, so that steps keep their size
LOWEST = 0.02


class ConditionedLBFGS:
    """:class:`fastnst.lbfgs.LBFGS` on z.

    Args:
        image: ``[1, 3, H, W]``, the tensor that :meth:`step` will update in place.
        learning_rate, history, dtype: as of :class:`fastnst.lbfgs.LBFGS`.
        unit: a factor of the gradients that keeps their scalar products in range; it changes no step.
    """

    carries: tuple[str, ...] = ()  # curvature learnt at one size says nothing at another

    def __init__(
        self, image: Tensor, learning_rate: float, history: int, dtype: torch.dtype | None = None, unit: float = 1.0
    ) -> None:
        self.learning_rate, self.unit = learning_rate, unit
        self.inner = LBFGS(image, learning_rate, history, dtype)
        self.weights = weights(*image.shape[-2:]).to(image)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes: as of :class:`fastnst.lbfgs.LBFGS`."""
        return self.inner.state()

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on from a ``state``, if ``memory`` holds one."""
        self.inner.restore(memory)

    @torch.no_grad()
    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given the gradient there."""
        change = torch.zeros_like(image)
        slope = weighted(gradient, self.weights)
        self.inner.step(change, slope if self.unit == 1 else slope.mul_(self.unit))
        image.add_(weighted(change, self.weights))


def weights(height: int, width: int) -> Tensor:
    """The weight of each frequency of a picture's real Fourier transform, ``[H, W // 2 + 1]``, float64."""
    down = torch.fft.fftfreq(height, dtype=torch.float64, device="cpu")[:, None]
    across = torch.fft.rfftfreq(width, dtype=torch.float64, device="cpu")
    return (torch.hypot(down, across).clamp(min=LOWEST) / MIDDLE) ** -POWER


def weighted(x: Tensor, weights: Tensor) -> Tensor:
    """A x: the frequencies of each plane of ``x [B, C, H, W]`` times their weights."""
    size = x.shape[-2:]
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(x).mul_(weights), s=size)
    return found
