from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from op_cases import LAYOUTS, Shape, features, noise, relative_error
from torch import Tensor

from fastnst import ops


@pytest.mark.parametrize("shape", [(1, 512, 64, 64), (1, 64, 181, 181), (2_000_003,), (1, 3, 700_001)], ids=str)
def test_content_loss_of_large_features_is_accurate(shape: Shape) -> None:
    x, target = features(shape).float().requires_grad_(), features(shape, 2).float()
    loss = ops.content_loss(x, target)
    difference = x.detach().numpy().astype(np.float64) - target.numpy()
    assert relative_error(loss, torch.tensor(np.square(difference).sum())) <= 1e-6
    (gradient,) = torch.autograd.grad(loss, x)
    assert relative_error(gradient, torch.from_numpy(2 * difference)) <= 1e-6


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (16384,), (16385,), (3, 5), (2, 3, 4, 5, 6, 2)], ids=str)
def test_content_loss_takes_any_shape(shape: Shape) -> None:
    x, target = noise(shape).float(), noise(shape, 2).float()
    loss = ops.content_loss(x, target)
    assert loss.shape == ()
    assert relative_error(loss, (x.double() - target.double()).pow(2).sum()) <= 1e-6


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1.7])
def test_content_loss_of_a_flat_picture_is_accurate(value: float) -> None:
    x = torch.full((1, 3, 300, 301), value)
    assert relative_error(ops.content_loss(x, torch.zeros_like(x)), x.double().pow(2).sum()) <= 1e-6


@pytest.mark.parametrize("count", [1, 31, 32, 33, 1023, 1024, 1025, 16383, 16385])
def test_content_loss_includes_every_element_once(count: int) -> None:
    assert ops.content_loss(torch.ones(count), torch.zeros(count)) == count


def test_content_loss_of_equals_is_zero_and_so_is_its_gradient() -> None:
    x = noise((1, 3, 5, 5)).requires_grad_()
    loss = ops.content_loss(x, x.detach().clone())
    assert loss == 0
    assert not torch.autograd.grad(loss, x)[0].any()


def test_content_loss_of_half_features_does_not_overflow() -> None:
    x = torch.full((1, 2, 40, 40), 60000, dtype=torch.float16)
    loss = ops.content_loss(x, -x)
    assert relative_error(loss, torch.tensor(3200 * 120000.0**2).double()) <= 1e-6


@pytest.mark.parametrize("of_target", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("of_x", LAYOUTS, ids=lambda layout: layout.__name__)
def test_content_loss_pairs_elements_by_index_not_by_address(
    of_x: Callable[[Tensor], Tensor], of_target: Callable[[Tensor], Tensor]
) -> None:
    x, target = noise((2, 3, 4, 5)), noise((2, 3, 4, 5), 2)
    leaf = of_x(x).requires_grad_()
    loss = ops.content_loss(leaf, of_target(target))
    assert relative_error(loss, (x - target).pow(2).sum()) < 1e-13
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert relative_error(gradient, 2 * (x - target)) < 1e-15


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_content_loss_gradients_are_right(layout: Callable[[Tensor], Tensor]) -> None:
    x, target = layout(noise((2, 3, 2, 3))).requires_grad_(), noise((2, 3, 2, 3), 2).requires_grad_()
    assert torch.autograd.gradcheck(ops.content_loss, (x, target))
    assert torch.autograd.gradgradcheck(ops.content_loss, (x, target))


def test_content_loss_of_one_tensor_with_itself_has_both_gradients() -> None:
    x = noise((2, 3, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(ops.content_loss(x, 3 * x), x)
    assert relative_error(gradient, 8 * x.detach()) < 1e-15
