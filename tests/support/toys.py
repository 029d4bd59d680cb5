"""Toy objectives for the loop: no network, so that every iterate can be checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.objective.protocol import Losses

SHAPE = (1, 3, 4, 5)


def noise(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Bowl:
    """A convex function without a closed-form minimizer: sum a (x - c)^2 / 2 + log cosh(x - c)."""

    def __init__(self, shape: tuple[int, ...] = SHAPE) -> None:
        self.center = noise(1, shape) * 5
        self.stiffness = noise(2, shape).abs() + 0.1
        self.images: list[Tensor] = []

    def value(self, image: Tensor) -> Tensor:
        offset = image - self.center
        return (0.5 * self.stiffness * offset**2 + offset.cosh().log()).sum()

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        self.images.append(image.clone())
        offset = image - self.center
        total = self.value(image).item()
        return Losses(total=total, content={"relu1_1": total}), self.stiffness * offset + offset.tanh()


class Script:
    """Total losses from a list, one per evaluation, of which the last repeats; the gradient is constant."""

    def __init__(self, totals: Sequence[float | BaseException], gradient: float = 1.0) -> None:
        self.totals, self.gradient = list(totals), gradient
        self.images: list[Tensor] = []

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        self.images.append(image.clone())
        total = self.totals[min(len(self.images), len(self.totals)) - 1]
        if isinstance(total, BaseException):
            raise total
        return Losses(total=total), torch.full_like(image, self.gradient)


class Valley:
    """A convex objective on the device whose loss, or gradient with ``cliff``, is not finite beyond ``wall``."""

    parts = (("content", "relu1_1"), ("style", "relu1_1"))

    def __init__(self, wall: float = math.inf, cliff: bool = False, dtype: torch.dtype = torch.float64) -> None:
        self.center, self.stiffness = (noise(1) * 5).to(dtype), (noise(2).abs() + 0.1).to(dtype)
        self.wall, self.cliff = wall, cliff

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        offset = image - self.center
        far = image.abs().max() > self.wall
        values = torch.stack(((0.5 * self.stiffness * offset**2).sum(), offset.cosh().log().sum()))
        gradient = self.stiffness * offset + offset.tanh()
        if self.cliff:
            gradient = torch.where(far, math.nan, gradient)
        else:
            values = torch.where(far, math.inf, values)
        return values, gradient

    def losses(self, values: Any) -> Losses:
        return Losses(total=sum(values), content={"relu1_1": values[0]}, style={"relu1_1": values[1]})

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        values, gradient = self.evaluate(image)
        return self.losses(values.tolist()), gradient


def adam(**changes: Any) -> Settings:
    return Settings.from_preset(optimizer="adam", **{"learning_rate": 0.5, "steps": 10, **changes})


def newton(**changes: Any) -> Settings:
    return Settings.from_preset(optimizer="lbfgs", **{"steps": 10, **changes})


def zeros() -> Tensor:
    return torch.zeros(SHAPE, dtype=torch.float64)
