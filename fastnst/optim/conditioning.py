"""L-BFGS with a preconditioner that makes low frequencies of an image as easy to change as high ones.

The gradient of a style transfer has components at every spatial frequency, but L-BFGS starts from a scaled identity as
Hessian and needs many steps to learn the curvature of the low ones. The image is therefore written as x = A z, and
L-BFGS runs on z. A^2 multiplies the frequency f (in cycles per pixel) by 1 + (CORNER / max(f, LOWEST))^POWER, times a
constant. A is symmetric, so the gradient with respect to z is A times the gradient with respect to x, and z itself is
never needed. The loss and its minima are the same. ``docs/experiments/time_to_loss.md`` has the measured gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastnst.config.ranges import FIRST_CHANGE
from fastnst.optim.lbfgs import LBFGS

CORNER = 0.08
POWER = 1.5
MIDDLE = 0.1  # the frequency of weight 1, so that steps keep their size
LOWEST = 0.004
SHORT = 64  # rows up to this length: the bits of real transforms of them depend on the number of threads


class ConditionedLBFGS:
    """:class:`fastnst.optim.lbfgs.LBFGS` on z.

    Args:
        image: ``[1, 3, H, W]``, the tensor that :meth:`step` will update in place.
        learning_rate, history, dtype, first_change: as in :class:`fastnst.optim.lbfgs.LBFGS`.
        unit: factor of the gradients that keeps their scalar products in range; it does not change the steps.
        share: as in :class:`fastnst.optim.lbfgs.LBFGS`.
    """

    carried: tuple[str, ...] = ()  # curvature learned at one size is useless at another

    def __init__(
        self,
        image: Tensor,
        learning_rate: float,
        history: int,
        dtype: torch.dtype | None = None,
        unit: float = 1.0,
        share: float = 1.0,
        *,
        first_change: float = FIRST_CHANGE,
    ) -> None:
        self.learning_rate, self.unit = learning_rate, unit
        self.inner = LBFGS(image, learning_rate, history, dtype, share, first_change=first_change)
        self.weights = frequency_weights(*image.shape[-2:]).to(image)

    def state_dict(self) -> dict[str, Any]:
        """The state of the inner :class:`fastnst.optim.lbfgs.LBFGS`."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy a state; an empty one changes nothing."""
        self.inner.load_state_dict(state)

    @torch.no_grad()
    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given its gradient."""
        change = torch.zeros_like(image)
        conditioned = precondition(gradient, self.weights)
        self.inner.step(change, conditioned if self.unit == 1 else conditioned.mul_(self.unit))
        image.add_(precondition(change, self.weights))


def frequency_weights(height: int, width: int) -> Tensor:
    """The weight of each frequency of the real Fourier transform of an image, ``[H, W // 2 + 1]``, float64."""
    vertical = torch.fft.fftfreq(height, dtype=torch.float64, device="cpu")[:, None]
    horizontal = torch.fft.rfftfreq(width, dtype=torch.float64, device="cpu")
    lowest = max(LOWEST, 1 / max(height, width))  # the mean of the image changes no more easily than its longest wave
    frequency = torch.hypot(vertical, horizontal).clamp(min=lowest)
    squares: Tensor = (1 + (CORNER / frequency) ** POWER) / (1 + (CORNER / MIDDLE) ** POWER)
    return squares.sqrt()


def precondition(x: Tensor, weights: Tensor) -> Tensor:
    """A x: each plane of ``x [B, C, H, W]`` with its frequencies multiplied by ``weights``."""
    size = x.shape[-2:]
    if size[1] <= SHORT:
        columns = torch.arange(size[1], device=x.device)
        whole = weights[:, torch.minimum(columns, size[1] - columns)]
        found: Tensor = torch.fft.ifft2(torch.fft.fft2(x).mul_(whole)).real
    else:
        found = torch.fft.irfft2(torch.fft.rfft2(x).mul_(weights), s=size)
    return found
