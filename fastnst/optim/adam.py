"""Adam for one image. ``torch.optim.Adam`` gives the same image, but constructing it imports PyTorch's compiler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.ops import reference


class Adam:
    """Algorithm 1 of Kingma and Ba, "Adam", 2015, for one image.

    Args:
        image: the tensor that :meth:`step` will update in place; it gives shape, dtype and device of the moments.
        learning_rate: factor of each step.
        betas: decay rates of the two moments.
        epsilon: term added to the denominator.
        unit: factor of the gradients, a power of two, that keeps their squares in range; it does not change the steps.
    """

    carried: tuple[str, ...] = ("mean", "square", "count")
    """The entries of the state that an image of another size can start from: see :func:`resize_state`."""

    def __init__(
        self,
        image: Tensor,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        unit: float = 1.0,
    ) -> None:
        self.learning_rate, self.betas, self.epsilon, self.unit = learning_rate, betas, epsilon * unit, unit
        self._image = image
        self.count = 0

    @cached_property
    def mean(self) -> Tensor:
        """The first moment: zeros, unless :meth:`load_state_dict` sets it before."""
        return torch.zeros_like(self._image)

    @cached_property
    def square(self) -> Tensor:
        """The second moment, likewise."""
        return torch.zeros_like(self._image)

    def state_dict(self) -> dict[str, Any]:
        """The state, tensors not copied."""
        return {"mean": self.mean, "square": self.square, "count": self.count, "learning_rate": self.learning_rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with a state, or the ``carried`` part of one, whose tensors become the optimizer's.

        An empty one changes nothing.
        """
        if "mean" in state:
            self.mean, self.square = (state[name].to(self._image).contiguous() for name in ("mean", "square"))
            self.count = state["count"]
        self.learning_rate = state.get("learning_rate", self.learning_rate)

    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given its gradient."""
        self.count += 1
        self.update(image, gradient, *self.factors(self.count))

    def factors(self, count: int) -> tuple[float, float]:
        """The bias-corrected learning rate and the root of the bias of the second moment at step ``count``, from 1."""
        first, second = self.betas
        return self.learning_rate / (1 - first**count), math.sqrt(1 - second**count)

    @property
    def constants(self) -> tuple[float, float, float, float]:
        """The decay rates of the moments, epsilon for gradients times ``unit``, and ``unit``."""
        return (*self.betas, self.epsilon, self.unit)

    def update(self, image: Tensor, gradient: Tensor, rate: float | Tensor, bias: float | Tensor) -> None:
        """Take one step with the given :meth:`factors`, numbers or tensors ``[]`` on the device of the image."""
        reference.adam_update(image, gradient, (self.mean, self.square), (rate, bias), self.constants)


def resize_state(state: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """The ``carried`` state of :class:`Adam` for an image of another size.

    As style-transfer-pytorch does, the first moment is interpolated bicubically, the second bilinearly, which keeps it
    non-negative. With antialiasing, which changes nothing where images grow, the bits of bilinear interpolation do not
    depend on the number of threads.
    """
    modes = {"mean": ("bicubic", False), "square": ("bilinear", True)}
    tensors = {
        name: F.interpolate(state[name], (height, width), mode=mode, antialias=antialias)
        for name, (mode, antialias) in modes.items()
        if name in state
    }
    return {**state, **tensors}
