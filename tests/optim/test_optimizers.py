"""Adam and L-BFGS against PyTorch's, and on functions with a known minimum."""

from __future__ import annotations

import math

import pytest
import torch
from support.toys import SHAPE, Bowl, adam, newton, noise, zeros
from torch import Tensor

from fastnst.optim import conditioning, lbfgs, loop


def test_adam_equals_pytorchs_bit_for_bit() -> None:
    start, objective = noise(), Bowl()
    run = loop.optimize(objective, start, adam(steps=20, learning_rate=0.3))

    image = start.clone()
    other = torch.optim.Adam([image], lr=0.3)
    for _ in range(20):
        _, image.grad = Bowl().value_and_grad(image)
        other.step()
    assert torch.equal(run.image, image)


@pytest.mark.parametrize("history", [20, 3, 1])
@pytest.mark.parametrize("rate", [1.0, 0.7])
def test_lbfgs_agrees_with_pytorchs(monkeypatch: pytest.MonkeyPatch, history: int, rate: float) -> None:
    start = noise()
    # PyTorch's first step has an L1 norm of 1, ours a mean change of FIRST_CHANGE per pixel.
    monkeypatch.setattr(lbfgs, "MOST_CHANGE", math.inf)
    monkeypatch.setattr(lbfgs, "LONG", 0.0)
    monkeypatch.setattr(conditioning, "POWER", 0.0)  # on the image itself
    for steps in (1, 2, 3, 5, 15):
        settings = newton(steps=steps, history=history, learning_rate=rate, first_change=1 / start.numel())
        run = loop.optimize(Bowl(), start, settings)
        image = start.clone().requires_grad_(True)
        other = torch.optim.LBFGS([image], rate, steps, 10**6, 0, 0, history)
        bowl = Bowl()

        def closure(image: Tensor = image, bowl: Bowl = bowl, other: torch.optim.LBFGS = other) -> Tensor:
            other.zero_grad()
            loss = bowl.value(image)
            loss.backward()
            return loss

        other.step(closure)
        assert (run.image - image.detach()).norm() <= 1e-11 * image.detach().norm()


def test_the_first_lbfgs_step_has_a_fixed_length_along_the_negative_gradient() -> None:
    for scale in (1e-6, 1.0, 1e6):
        image = zeros()
        lbfgs.LBFGS(image, 0.5).step(image, noise() * scale)
        assert image.abs().mean().item() == pytest.approx(0.5 * lbfgs.FIRST_CHANGE)
        torch.testing.assert_close(image / image.norm(), -noise() / noise().norm())


def test_the_mean_change_of_an_lbfgs_step_is_bounded() -> None:
    image = zeros()
    optimizer = lbfgs.LBFGS(image)
    gradient = noise()
    optimizer.step(image, gradient)
    before = image.clone()
    optimizer.step(image, 0.999 * gradient)  # almost linear: an unbounded step would be a thousand times longer
    change = image - before
    assert change.abs().mean().item() == pytest.approx(lbfgs.MOST_CHANGE)
    torch.testing.assert_close(change / change.norm(), -gradient / gradient.norm())


def test_lbfgs_solves_a_quadratic_in_few_steps() -> None:
    curvatures = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64).view(1, 3, 1, 1).expand(SHAPE)
    image = noise()
    optimizer = lbfgs.LBFGS(image)
    for _ in range(25):
        optimizer.step(image, curvatures * (image - 2))
    torch.testing.assert_close(image, torch.full_like(image, 2))


def test_lbfgs_skips_pairs_without_positive_curvature() -> None:
    image = noise()
    optimizer = lbfgs.LBFGS(image)
    for _ in range(3):
        optimizer.step(image, -image.clone())  # negative curvature: the gradient changes against the step
        assert optimizer.count == 0
    before = image.clone()
    optimizer.step(image, torch.ones_like(image))
    assert torch.isfinite(image).all()
    assert not torch.equal(image, before)


def test_lbfgs_does_not_move_without_a_gradient() -> None:
    image = noise()
    before, optimizer = image.clone(), lbfgs.LBFGS(image)
    for _ in range(3):
        optimizer.step(image, torch.zeros_like(image))
    assert torch.equal(image, before)
