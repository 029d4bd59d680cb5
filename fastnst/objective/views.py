"""Objectives of an image that is optimized through another: a mirrored margin, and pixels that are held.

A view is a map from the optimized image to the one that is evaluated. It is affine, so the gradient goes back through
the transpose, and any objective can be evaluated through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.objective.joint import Stages
from fastnst.objective.protocol import Losses, ValueAndGrad
from fastnst.objective.whole import Objective


class View(Protocol):
    """A map of images, and the transpose of its linear part.

    Attributes:
        share: of the pixels of the optimized image that the evaluated one depends on.
    """

    share: float

    def image(self, x: Tensor) -> Tensor:
        """The image that is evaluated for ``x``."""
        ...

    def gradient(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to ``x`` from that with respect to the evaluated image."""
        ...


class Mirror:
    """The image continued at the right and at the bottom, mirrored at its last column and row.

    Pools leave out rows and columns that do not fill a window. Those of the image fill one after it is continued to a
    multiple of the stride of the deepest layer.

    Args:
        size: height and width of the image.
        stride: of the deepest layer; at most the shorter side.

    Example:
        >>> import torch
        >>> view = Mirror((5, 8), 4)
        >>> view.image(torch.arange(5.0).reshape(1, 1, 5, 1).expand(1, 1, 5, 8))[0, 0, :, 0].tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]
    """

    def __init__(self, size: tuple[int, int], stride: int) -> None:
        self.size, self.share = size, 1.0
        self.more = (-size[0] % stride, -size[1] % stride)

    @property
    def extended(self) -> tuple[int, int]:
        """Height and width of the continued image."""
        return self.size[0] + self.more[0], self.size[1] + self.more[1]

    def image(self, x: Tensor) -> Tensor:
        """``x [B, C, H, W]``, continued; ``x`` itself where nothing is left out."""
        below, right = self.more
        return F.pad(x, (0, right, 0, below), mode="reflect") if below or right else x

    def gradient(self, gradient: Tensor) -> Tensor:
        """The gradient of the image; that of each added pixel is added to the pixel that it mirrors."""
        for axis, size, more in ((2, self.size[0], self.more[0]), (3, self.size[1], self.more[1])):
            if more:
                added = gradient.narrow(axis, size, more).flip(axis)
                gradient = gradient.narrow(axis, 0, size).clone(memory_format=torch.contiguous_format)
                gradient.narrow(axis, size - 1 - more, more).add_(added)
        return gradient


class Hold:
    """Known pixels outside a hole: ``known + weight (x - known)``.

    Args:
        known: pixels ``[1, 3, H, W]``.
        weight: ``[1, 1, H, W]``: 1 inside the hole, 0 outside, values in between where both are mixed.
    """

    def __init__(self, known: Tensor, weight: Tensor) -> None:
        self.known, self.weight = known, weight.to(known)
        self.share = float(weight.mean())

    def image(self, x: Tensor) -> Tensor:
        """The known pixels where the weight is 0, those of ``x`` where it is 1, exactly."""
        return torch.lerp(self.known, x, self.weight)

    def gradient(self, gradient: Tensor) -> Tensor:
        """The gradient, zero outside the hole."""
        return gradient * self.weight


class ViewedObjective:
    """An objective whose image is a view of the optimized one.

    Args:
        objective: of the evaluated image.
        view: the view.
    """

    def __init__(self, objective: ValueAndGrad, view: View) -> None:
        self.objective, self.view, self.share = objective, view, view.share

    @property
    def stages(self) -> Stages | None:
        """The losses of several layers of the objective: see :class:`fastnst.objective.whole.Objective`."""
        return getattr(self.objective, "stages", None)

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        """As :meth:`fastnst.objective.protocol.ValueAndGrad.value_and_grad`."""
        losses, gradient = self.objective.value_and_grad(self.view.image(image))
        return losses, self.view.gradient(gradient)


class ViewedDeviceObjective(ViewedObjective):
    """As :class:`ViewedObjective`, for an objective whose evaluation stays on the device."""

    objective: Objective | ViewedDeviceObjective

    def __init__(self, objective: Objective | ViewedDeviceObjective, view: View) -> None:
        super().__init__(objective, view)
        self.parts: tuple[tuple[str, str], ...] = objective.parts

    @torch.no_grad()
    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`fastnst.objective.whole.Objective.evaluate`."""
        values, gradient = self.objective.evaluate(self.view.image(image))
        return values, self.view.gradient(gradient)

    def losses(self, values: Sequence[float]) -> Losses:
        """As :meth:`fastnst.objective.whole.Objective.losses`."""
        return self.objective.losses(values)


def viewed(objective: ValueAndGrad, view: View) -> ValueAndGrad:
    """``objective`` through ``view``."""
    if isinstance(objective, (Objective, ViewedDeviceObjective)):
        return ViewedDeviceObjective(objective, view)
    return ViewedObjective(objective, view)
