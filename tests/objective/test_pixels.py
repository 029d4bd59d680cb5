"""The loss of the pixels, against autograd of its formula, whole and in strips."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from fastnst import Settings
from fastnst.errors import UsageError
from fastnst.network.vgg import VGG
from fastnst.objective.pixels import PixelTarget
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.strips.objective import StripObjective
from fastnst.weights import Weights

LAYERS: dict[str, Any] = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0))}
FACTOR = 7.0


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(image: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Equation 7 of Ruder, Dosovitskiy and Brox (2016): 1/D sum c (x - w)^2, with D the number of values."""
    return FACTOR * (weight * (image - target) ** 2).sum() / image.numel()


@pytest.mark.parametrize("size", [(48, 36), (36, 48)])
@pytest.mark.parametrize("tv", [0.0, 0.5])
def test_the_loss_joins_the_objective_whole_and_in_strips(bundled64: Weights, size: tuple[int, int], tv: float) -> None:
    settings = Settings(precision="float64", tv_weight=tv, **LAYERS)
    network = VGG(bundled64, settings.layer_names(), dtype=torch.float64)
    content, style, image = (drawn(1, 3, *size, seed=i) * 255 for i in range(3))
    target, weight = drawn(1, 3, *size, seed=3) * 255, drawn(1, 1, *size, seed=4)
    targets, pixel_target = style_targets(network, style, settings), PixelTarget(target, weight, FACTOR)
    plain, plain_gradient = Objective(network, content, targets, settings).value_and_grad(image)
    own = image.clone().requires_grad_(True)
    expected = value(own, target, weight)
    expected.backward()
    whole = Objective(network, content, targets, settings, pixel_target=pixel_target)
    strips = StripObjective(network, content, targets, settings, 16, pixel_target=pixel_target)
    for objective in (whole, strips):
        losses, gradient = objective.value_and_grad(image)
        assert losses.temporal == pytest.approx(expected.item(), rel=1e-12)
        assert losses.total == pytest.approx(plain.total + expected.item(), rel=1e-12)
        torch.testing.assert_close(gradient - plain_gradient, own.grad, rtol=1e-8, atol=1e-9)
    assert dataclasses.replace(losses, total=0, temporal=-1e9).magnitude >= 1e9


def test_an_extended_target_has_the_same_loss_and_no_gradient_outside() -> None:
    image, target, weight = drawn(1, 3, 5, 7), drawn(1, 3, 5, 7, seed=1), drawn(1, 1, 5, 7, seed=2)
    larger = torch.zeros(1, 3, 8, 9, dtype=torch.float64)
    larger[:, :, :5, :7] = image
    larger[:, :, 5:] = 3.0
    gradient, inner = torch.zeros_like(larger), torch.zeros_like(image)
    whole = PixelTarget(target, weight, FACTOR)
    found = whole.extended(3, 2).add_gradient_(gradient, larger)
    assert found.item() == pytest.approx(whole.add_gradient_(inner, image).item(), rel=1e-12)
    torch.testing.assert_close(gradient[:, :, :5, :7], inner)
    assert not gradient[:, :, 5:].any()
    assert not gradient[..., 7:].any()


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 1, 4, 5), (4, 4)])
def test_a_weight_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"expected a target \[1, 3, H, W\] and a weight \[1, 1, H, W\]"):
        PixelTarget(torch.zeros(1, 3, 4, 4), torch.zeros(shape), 1.0)
