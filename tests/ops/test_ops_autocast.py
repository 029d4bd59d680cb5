"""Inside autocast features have half precision; losses and Gram matrices stay in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import exact_gram, features, noise
from torch import Tensor

from fastnst import ops

TARGET = exact_gram(features((1, 6, 9, 9)), scale=1 / 81).float()[0]


def _style_with_residual(f: Tensor) -> Tensor:
    loss, residual = ops.style_loss_and_residual(f, TARGET, scale=1 / 64)
    return loss + residual.square().sum()


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "gram": lambda f: ops.gram(f, scale=1 / 64),
    "gram weighted": lambda f: ops.gram(f, noise((8, 8)).abs(), scale=1 / 64),
    "moments": lambda f: torch.cat([m.flatten() for m in ops.moments(f, 1 / 64)]),
    "style_loss": lambda f: ops.style_loss(f, TARGET, scale=1 / 64),
    "style_loss and residual": _style_with_residual,
    "content_loss": lambda f: ops.content_loss(f, f.detach() * 0.5),
    "content_loss with a float32 target": lambda f: ops.content_loss(f, features((1, 6, 8, 8), 3).float()),
    "total_variation": lambda f: ops.total_variation(f, "squared"),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def convolved(x: Tensor) -> Tensor:
    return torch.nn.functional.conv2d(x, 0.3 * noise((6, 3, 3, 3), 2).float(), padding=1)


@half
@every_call
def test_autocast_changes_nothing_but_the_features(call: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = noise((1, 3, 8, 8)).float()
    with torch.autocast("cpu", dtype=dtype):
        f = convolved(x)
        assert f.dtype == dtype
        inside = f.detach().requires_grad_()
        value = call(inside)
        (gradient,) = torch.autograd.grad(value.sum(), inside)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    outside = f.detach().requires_grad_()
    mixed = call is CALLS["content_loss with a float32 target"]
    expected = call(outside.float() if mixed else outside)
    assert torch.equal(value, expected)
    assert torch.equal(gradient, torch.autograd.grad(expected.sum(), outside)[0])


@every_call
def test_gradients_reach_the_image_through_a_convolution(call: Callable[[Tensor], Tensor]) -> None:
    x = noise((1, 3, 8, 8)).float().requires_grad_()
    (exact,) = torch.autograd.grad(call(convolved(x)).sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(convolved(x)).sum()
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.dtype == torch.float32
    assert (gradient - exact).norm() < 0.03 * exact.norm()


@every_call
def test_second_derivatives_inside_autocast_are_those_outside(call: Callable[[Tensor], Tensor]) -> None:
    f, direction = features((1, 6, 8, 8)).float().requires_grad_(), noise((1, 6, 8, 8)).float()

    def second() -> Tensor:
        (first,) = torch.autograd.grad(call(f).square().sum(), f, create_graph=True)
        return torch.autograd.grad((first * direction).sum(), f)[0]

    expected = second()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(second(), expected)


def test_gram_inside_autocast_does_not_overflow_half() -> None:
    with torch.autocast("cpu", dtype=torch.float16):
        g = ops.gram(torch.full((1, 2, 40, 40), 60000, dtype=torch.float16))
    assert g.isfinite().all()


def test_content_loss_outside_autocast_wants_one_dtype() -> None:
    with pytest.raises(TypeError, match=r"expected target of dtype torch.bfloat16 like x, got torch.float32"):
        ops.content_loss(features((1, 3, 2, 2)).bfloat16(), features((1, 3, 2, 2)).float())
