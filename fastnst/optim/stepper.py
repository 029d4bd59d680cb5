"""One image under optimization: evaluate the objective, accept the image and step, or backtrack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from fastnst.config.resolve import history_dtype
from fastnst.config.settings import Settings
from fastnst.objective.protocol import Losses, ValueAndGrad
from fastnst.ops.reference import CHUNK
from fastnst.optim.adam import Adam
from fastnst.optim.conditioning import ConditionedLBFGS
from fastnst.optim.pyramid import PyramidAdam
from fastnst.spill import FileTensor, release_pages


class Optimizer(Protocol):
    """Updates one image in place, given its gradient."""

    learning_rate: float
    carried: tuple[str, ...]

    def step(self, image: Tensor, gradient: Tensor) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def make_optimizer(image: Tensor, settings: Settings, share: float = 1.0) -> Optimizer:
    """The optimizer that the settings of one scale name, for ``image``, of whose pixels ``share`` may change."""
    unit = settings.gradient_unit()
    if settings.optimizer != "lbfgs":
        kind = PyramidAdam if settings.optimizer == "adam_pyramid" else Adam
        return kind(image, settings.learning_rate, settings.betas, settings.epsilon, unit)
    assert isinstance(settings.history, int), "expected the settings of one scale"
    dtype = history_dtype(settings.history_dtype, image.dtype)
    rate, first_change = settings.learning_rate, settings.first_change
    return ConditionedLBFGS(image, rate, settings.history, dtype, unit, share, first_change=first_change)


def all_finite(x: Tensor) -> bool:
    """Whether every value is finite, tested a chunk at a time because the test makes copies."""
    return all(bool(part.isfinite().all()) for part in x.reshape(-1).split(CHUNK))


class Stepper:
    """Runs one op after the other: for any objective, on any device.

    Args:
        objective: the function to minimize.
        image: the start, ``[1, 3, H, W]`` in 0..255, updated in place.
        settings: the settings of one scale.
        state: the :meth:`state_dict` of a stepper to resume from, or its optimizer's part alone. Its tensors become the
            stepper's.
    """

    def __init__(
        self,
        objective: ValueAndGrad,
        image: Tensor,
        settings: Settings,
        state: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.objective, self.image, self.settings = objective, image, settings
        state = state or {}
        own = state.get("loop", {})
        if "image" in own:
            image.copy_(own["image"])
        self._good = FileTensor(own.get("good", image))
        self._share = getattr(objective, "share", 1.0)  # see fastnst.objective.views
        self.optimizer = make_optimizer(image, settings, self._share)
        self.optimizer.load_state_dict(state.get("optimizer", {}))
        self.gradient: Tensor | None = None

    @property
    def good(self) -> Tensor:
        """The last image whose loss was accepted."""
        return self._good.tensor

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """The state between two steps, tensors not copied."""
        return {"loop": {"image": self.image, "good": self.good}, "optimizer": self.optimizer.state_dict()}

    def carried(self) -> dict[str, Any]:
        """The part of the optimizer's state that serves another size: see :func:`fastnst.optim.adam.resize_state`."""
        if not self.optimizer.carried:
            return {}
        state = self.state_dict()["optimizer"]
        return {name: state[name] for name in self.optimizer.carried}

    def evaluate(self) -> tuple[Losses, bool]:
        """Compute losses and gradient of the image; return the losses, and whether everything is finite."""
        release_pages()  # of a checkpoint, a snapshot or a shortened step
        losses, self.gradient = self.objective.value_and_grad(self.image)
        return losses, math.isfinite(losses.total) and all_finite(self.gradient)

    def check(self) -> tuple[Losses, bool]:
        """As :meth:`evaluate`, op by op and without a step to follow: nothing else changes."""
        found = Stepper.evaluate(self)
        self.gradient = None
        return found

    def accept(self) -> None:
        """Accept the image evaluated last, and take a step from it."""
        assert self.gradient is not None
        self._good.store(self.image)
        self.optimizer.step(self.image, self.gradient)
        if self.settings.clamp:
            self.image.clamp_(0, 255)
        self.gradient = None  # released before the next one is computed

    def backtrack(self) -> None:
        """Halve the distance to the last accepted image."""
        self.gradient = None
        for image, good in zip(*(x.view(-1).split(CHUNK) for x in (self.image, self.good)), strict=True):
            image.copy_(torch.where(image.isfinite(), image, good).sub_(good).mul_(0.5).add_(good))

    def reduce_rate(self) -> None:
        """After a rejected step: halve the learning rate of Adam, discard the history of L-BFGS."""
        if self.settings.optimizer == "lbfgs":
            self.optimizer = make_optimizer(self.image, self.settings, self._share)
        else:
            self.optimizer.learning_rate *= 0.5
