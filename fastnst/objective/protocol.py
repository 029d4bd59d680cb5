"""What an optimizer needs of an objective: the losses at an image, and their gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Losses:
    """The weighted parts of a loss; ``total`` is the sum of all parts.

    Example:
        >>> losses = Losses(total=3.0, content={"relu4_2": 1.0}, style={"relu1_1": 1.5}, tv=0.5)
        >>> losses.style["relu1_1"]
        1.5
    """

    total: float
    content: Mapping[str, float] = field(default_factory=dict)
    style: Mapping[str, float] = field(default_factory=dict)
    tv: float = 0.0
    temporal: float = 0.0

    @property
    def magnitude(self) -> float:
        """The sum of the magnitudes of the parts, the scale on which a change of the total is small or large.

        It equals the total unless a part is negative. No loss of fastnst is; a registered style loss may be.
        """
        return max(
            abs(self.total), sum(map(abs, (*self.content.values(), *self.style.values(), self.tv, self.temporal)))
        )


class ValueAndGrad(Protocol):
    """An objective: any object with this method can be minimized."""

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        """Losses and gradient of an image ``[1, 3, H, W]``; the gradient has the image's shape, dtype and device."""
        ...


@runtime_checkable
class DeviceObjective(Protocol):
    """An objective whose evaluation stays on the device, so that a CUDA graph can capture it.

    :class:`fastnst.objective.whole.Objective` is one.
    """

    parts: tuple[tuple[str, str], ...]

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The value of each part ``[P]`` and the gradient, without waiting for the device."""
        ...

    def losses(self, values: Sequence[float]) -> Losses:
        """The values of ``parts`` as :class:`Losses`."""
        ...
