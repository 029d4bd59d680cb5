from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import Shape, channels_last, contiguous, exact_gram, features, noise, relative_error
from torch import Tensor

from fastnst import ops

LARGE: tuple[Shape, ...] = ((1, 64, 181, 181), (1, 512, 64, 64), (1, 1, 2_000_000), (1, 3, 700_001))


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
def test_style_loss_of_large_features_is_accurate(shape: Shape, layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(features(shape).float()).requires_grad_()
    scale = 1 / x[0].numel()
    target = exact_gram(2 * features(shape, 4), scale=scale).float()
    loss, residual = ops.style_loss_and_residual(x, target, scale=scale)
    (gradient,) = torch.autograd.grad(loss, x)
    f = x.detach().double()
    exact = exact_gram(f, scale=scale) - target
    assert relative_error(loss, exact.pow(2).sum()) <= 1e-6
    assert relative_error(residual, exact) <= 1e-6
    assert relative_error(gradient, 4 * scale * torch.einsum("bij,bj...->bi...", exact, f)) <= 1e-6


def test_near_its_target_the_loss_is_as_accurate_as_the_gram_matrix() -> None:
    x = features((1, 64, 61, 67)).float()
    exact = exact_gram(x.double())
    target = (exact * (1 + 1e-4 * noise((1, 64, 64)))).float()
    loss, residual = ops.style_loss_and_residual(x, target)
    assert (residual - (exact - target)).norm() <= 1e-6 * exact.norm()
    assert relative_error(loss, (exact - target).pow(2).sum()) <= 1e-3


@pytest.mark.parametrize("scale", [1.0, 1 / 3])
def test_style_loss_at_its_target_is_rounding(scale: float) -> None:
    x = features((2, 33, 40, 41)).float()
    target = ops.gram(x, scale=scale)
    assert ops.style_loss(x, target, scale=scale) <= 1e-14 * target.square().sum()


def test_style_loss_of_half_features_does_not_overflow() -> None:
    x = torch.full((1, 2, 40, 40), 60000, dtype=torch.float16)
    loss = ops.style_loss(x, torch.zeros(2, 2))
    assert relative_error(loss, exact_gram(x.double()).pow(2).sum()) <= 1e-6


def test_residual_is_symmetric_where_the_target_is() -> None:
    x = features((2, 130, 9, 9)).float()
    _, residual = ops.style_loss_and_residual(x, ops.gram(features((2, 130, 4, 4)).float()))
    assert torch.equal(residual, residual.mT)


@pytest.mark.parametrize("shape", [(5, 5), (1, 5, 5), (2, 5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_target_is_shared_by_the_batch_or_one_each(shape: Shape, dtype: torch.dtype) -> None:
    x = features((2, 5, 7, 9)).float()
    target = noise(shape, 2).to(dtype).requires_grad_()
    loss = ops.style_loss(x, target)
    loss.backward()
    residual = exact_gram(x.double()) - target.detach().double()
    assert relative_error(loss, residual.pow(2).sum()) <= 1e-6
    assert target.grad is not None
    assert relative_error(target.grad.double(), (-2 * residual).sum_to_size(shape)) <= (
        2**-8 if dtype == torch.bfloat16 else 1e-6
    )


def test_target_need_not_be_symmetric() -> None:
    x, target = features((1, 5, 4, 4)), noise((5, 5))
    assert relative_error(ops.style_loss(x, target), (exact_gram(x) - target).pow(2).sum()) < 1e-13


@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("shape", "target_shape"), [((2, 3, 2, 3), (2, 3, 3)), ((2, 3), (3, 3)), ((1, 2, 5), (1, 2, 2))]
)
def test_style_loss_gradients_are_right(
    shape: Shape, target_shape: Shape, weighted: bool, layout: Callable[[Tensor], Tensor]
) -> None:
    x, target = layout(noise(shape)).requires_grad_(), noise(target_shape, 2).requires_grad_()
    weight = noise((shape[0], *shape[2:]), 3) if weighted else None

    def call(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return ops.style_loss_and_residual(x, target, weight, 0.3)

    assert torch.autograd.gradcheck(call, (x, target))
    assert torch.autograd.gradgradcheck(call, (x, target))


@pytest.mark.parametrize("wanted", ["x", "target"])
def test_style_loss_gradient_of_one_input_alone(wanted: str) -> None:
    x = noise((2, 3, 4)).requires_grad_(wanted == "x")
    target = noise((3, 3), 2).requires_grad_(wanted == "target")

    def call(_: Tensor) -> Tensor:
        return ops.style_loss(x, target)

    leaf = x if wanted == "x" else target
    assert torch.autograd.gradcheck(call, leaf)
    assert torch.autograd.gradgradcheck(call, leaf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_style_loss_of_wide_features_allocates_its_results_alone(dtype: torch.dtype) -> None:
    """Each task sums its rows in its own small buffer: no workspace, and no copy of the matrix in float32."""
    x, target, grad = features((1, 512, 16, 16)).to(dtype), torch.zeros(512, 512), noise((1, 512, 16, 16)).to(dtype)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        _, residual = ops.style_loss_and_residual(x, target)
        ops.layer_backward_(grad, x, residual=residual, style=0.1)
    taken = sum(max(0, event.self_cpu_memory_usage) for event in profile.events() or ())
    matrix = 512 * 512 * 4
    assert taken <= matrix * (1 if dtype == torch.float32 else 2) + 64
