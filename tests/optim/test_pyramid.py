"""Adam on a Laplacian pyramid, against torch.optim.Adam on coefficients that autograd differentiates."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.toys import noise
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.objective.protocol import Losses
from fastnst.optim.loop import LoopContext, LoopState, optimize
from fastnst.optim.pyramid import PyramidAdam, _interpolation_backward, pyramid_sizes
from fastnst.optim.stepper import make_optimizer


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def synthesized(levels: list[Tensor]) -> Tensor:
    """As syn_lap_pyr of the program."""
    image = levels[-1]
    for level in levels[-2::-1]:
        image = level + F.interpolate(image, level.shape[2:], mode="bilinear")
    return image


def decomposed(image: Tensor, count: int) -> list[Tensor]:
    """As dec_lap_pyr of the program."""
    levels = []
    for _ in range(count):
        small = F.interpolate(image, (image.shape[2] // 2, image.shape[3] // 2), mode="bilinear")
        levels.append(image - F.interpolate(small, image.shape[2:], mode="bilinear"))
        image = small
    return [*levels, image]


@pytest.mark.parametrize("size", [(16, 24), (13, 21), (2, 2), (3, 40)])
def test_it_is_adam_on_the_coefficients(size: tuple[int, int]) -> None:
    start, wanted = picture(*size), picture(*size, seed=1)
    levels = [one.clone().requires_grad_() for one in decomposed(start, len(pyramid_sizes(*size)) - 1)]
    other = torch.optim.Adam(levels, lr=0.02, betas=(0.8, 0.95))
    image = start.clone()
    own = PyramidAdam(image, 0.02, (0.8, 0.95), unit=0.5)
    for _ in range(20):
        other.zero_grad()
        (synthesized(levels) - wanted).pow(4).sum().backward()
        other.step()
        own.step(image, 4 * (image - wanted).pow(3))
    # PyTorch's interpolation has weights of float32 unless sides are halved exactly.
    error = 1e-9 if size == (16, 24) else 1e-4
    torch.testing.assert_close(image, synthesized(levels).detach(), rtol=error, atol=error)
    assert (image - start).abs().max() > 0.1


def test_levels_halve_down_to_two_pixels() -> None:
    assert pyramid_sizes(64, 36) == [(64, 36), (32, 18), (16, 9), (8, 4), (4, 2)]
    assert pyramid_sizes(3, 40) == [(3, 40)]


@pytest.mark.parametrize(("total", "count"), [(8, 4), (9, 4), (7, 3), (5, 2), (41, 20)])
def test_the_backward_of_interpolation_is_that_of_pytorch(total: int, count: int) -> None:
    x = torch.randn(1, 3, 6, total, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coarse = torch.zeros(1, 3, 6, count, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(F.interpolate(coarse, (6, total), mode="bilinear"), coarse, x)
    error = 1e-12 if total == 2 * count else 1e-5  # PyTorch's weights are float32
    torch.testing.assert_close(_interpolation_backward(x, count, 3), wanted, rtol=error, atol=error)
    torch.testing.assert_close(_interpolation_backward(x.mT, count, 2), wanted.mT, rtol=error, atol=error)


class Bowl:
    """The squared distance to gray."""

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        return Losses(float((image - 128).square().sum())), 2 * (image - 128)


def test_the_setting_selects_it_and_large_areas_change_faster() -> None:
    usual = {"learning_rate": 1.0, "steps": 10, "carry": False}
    losses = {}
    for name in ("adam", "adam_pyramid"):
        settings = Settings.from_preset(optimizer=name, **usual).at(1)
        losses[name] = optimize(Bowl(), torch.zeros(1, 3, 32, 32), settings).trace[-1].total
    assert losses["adam_pyramid"] < losses["adam"]
    made = make_optimizer(torch.zeros(1, 3, 32, 32), Settings.from_preset(optimizer="adam_pyramid").at(1))
    assert isinstance(made, PyramidAdam)
    assert made.carried == ()


def test_it_resumes_bit_for_bit() -> None:
    settings = Settings.from_preset(optimizer="adam_pyramid", steps=8).at(1)
    whole = optimize(Bowl(), noise(), settings)
    states: list[LoopState] = []

    class Writer:
        every = 3

        def write(self, state: LoopState) -> None:
            copied = {
                owner: {name: x.clone() if isinstance(x, Tensor) else x for name, x in values.items()}
                for owner, values in state.state.items()
            }
            states.append(LoopState(list(state.trace), copied))

    optimize(Bowl(), noise(), settings, LoopContext(writer=Writer()))
    for state in states:
        assert torch.equal(optimize(Bowl(), torch.zeros_like(noise()), settings, state=state).image, whole.image)
