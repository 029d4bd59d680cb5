"""An image on its way: where it stands, the last good place, how it looks around and how it moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from fastnst.adam import CHUNK, Adam
from fastnst.conditioning import ConditionedLBFGS
from fastnst.objective import Losses
from fastnst.settings import Settings


class ValueAndGrad(Protocol):
    """What the loop asks of an objective."""

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]: ...


class Optimizer(Protocol):
    """Updates an image in place, given the gradient there."""

    learning_rate: float
    carries: tuple[str, ...]

    def step(self, image: Tensor, gradient: Tensor) -> None: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, memory: Mapping[str, Any]) -> None: ...


def make_optimizer(image: Tensor, settings: Settings) -> Optimizer:
    """The optimiser that the settings, those of one scale, name for updates of ``image``."""
    unit = settings.gradient_unit()
    if settings.optimizer == "adam":
        return Adam(image, settings.learning_rate, settings.betas, settings.epsilon, unit)
    assert isinstance(settings.history, int), "expected the settings of one scale"
    dtype = torch.bfloat16 if settings.history_dtype == "bfloat16" else image.dtype
    return ConditionedLBFGS(image, settings.learning_rate, settings.history, dtype, unit)


def all_finite(x: Tensor) -> bool:
    """Whether every value is finite; a chunk at a time, since the test makes copies."""
    return all(bool(part.isfinite().all()) for part in x.reshape(-1).split(CHUNK))


class Walk:
    """One op after the other: for any objective, on any device.

    Args:
        objective: whose losses are to fall.
        image: the start, overwritten on the way.
        settings: the optimiser.
        memory: the ``state`` of a walk to go on from, or the optimiser's part of it.
    """

    def __init__(
        self, objective: ValueAndGrad, image: Tensor, settings: Settings, memory: Mapping[str, Any] | None = None
    ) -> None:
        self.objective, self.image, self.settings = objective, image, settings
        memory = memory or {}
        if "image" in memory:
            image.copy_(memory["image"])
        self.good = image.clone()
        if "good" in memory:
            self.good.copy_(memory["good"])
        self.optimizer = make_optimizer(image, settings)
        self.optimizer.restore(memory)
        self.gradient: Tensor | None = None

    def state(self) -> dict[str, Any]:
        """All that the steps to come depend on, tensors not copied: to be asked between two steps."""
        return {"image": self.image, "good": self.good, **self.optimizer.state()}

    def carried(self) -> dict[str, Any]:
        """What of the ``state`` serves an image of another size, see :func:`fastnst.adam.resized`."""
        if not self.optimizer.carries:
            return {}
        state = self.state()
        return {name: state[name] for name in self.optimizer.carries}

    def look(self) -> tuple[Losses, bool]:
        """The losses where the image stands, and whether they and the gradient are finite."""
        losses, self.gradient = self.objective.value_and_grad(self.image)
        return losses, math.isfinite(losses.total) and all_finite(self.gradient)

    def check(self) -> tuple[Losses, bool]:
        """What :meth:`look` finds, op by op, where no step follows: nothing else changes."""
        found = Walk.look(self)
        self.gradient = None
        return found

    def go(self) -> None:
        """Take the place last looked at for good, and step on from it."""
        assert self.gradient is not None
        self.good.copy_(self.image)
        self.optimizer.step(self.image, self.gradient)
        if self.settings.clamp:
            self.image.clamp_(0, 255)
        self.gradient = None  # let go before the next is made

    def turn_back(self) -> None:
        """Halve the way from the last good place."""
        image, good = self.image, self.good
        image.copy_(torch.where(image.isfinite(), image, good).sub_(good).mul_(0.5).add_(good))

    def calm(self) -> None:
        """After a step too long: Adam goes on at half its rate, L-BFGS forgets its curvature."""
        if self.settings.optimizer == "lbfgs":
            self.optimizer = make_optimizer(self.image, self.settings)
        else:
            self.optimizer.learning_rate *= 0.5
