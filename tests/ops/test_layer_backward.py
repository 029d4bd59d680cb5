from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_cases import BOUNDS, DTYPES, Shape, channels_last, contiguous, exact_gram, features, noise, relative_error
from torch import Tensor

from fastnst import ops

both_layouts = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)


@both_layouts
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 19, 7, 13), (1, 130, 9, 8), (2, 5, 300), (3, 5), (1, 64, 65, 66)], ids=str)
def test_layer_backward_is_autograd_of_the_losses_of_a_layer(
    shape: Shape, dtype: torch.dtype, weighted: bool, relu: bool, layout: Callable[[Tensor], Tensor]
) -> None:
    """For loss(F) = a sum (s F W F^T - A)^2 + b sum (F - P)^2 + <above, F> and F = relu(z), the derivative by z."""
    a, b, scale = 0.7, 0.3, 1 / max(1, features(shape).shape[2:].numel())
    z = noise(shape).to(dtype)
    x = layout(z.relu() if relu else z)
    above, target = noise(shape, 2).to(dtype), features(shape, 3).to(dtype)
    weight = noise((shape[0], *shape[2:]), 4).abs().to(torch.promote_types(dtype, torch.float32)) if weighted else None
    style = exact_gram(2 * features(shape, 5), scale=scale).to(torch.promote_types(dtype, torch.float32))

    leaf = z.to(torch.float64, copy=True).requires_grad_()
    f = leaf.relu() if relu else leaf
    gram = exact_gram(f, None if weight is None else weight.double(), scale)
    loss = a * (gram - style).pow(2).sum() + b * (f - target).pow(2).sum() + (above * f).sum()
    (expected,) = torch.autograd.grad(loss, leaf)

    grad = layout(above.clone())
    _, residual = ops.style_loss_and_residual(x, style, weight, scale)
    result = ops.layer_backward_(
        grad, x, residual=residual, weight=weight, style=4 * a * scale, target=target, content=2 * b, relu=relu
    )
    assert result is grad
    assert relative_error(grad, expected) <= BOUNDS[dtype]


@both_layouts
@pytest.mark.parametrize("shape", [(1, 512, 64, 64), (1, 64, 181, 181), (1, 3, 700_001), (1, 1, 2_000_000)], ids=str)
def test_layer_backward_of_a_large_layer_is_accurate(shape: Shape, layout: Callable[[Tensor], Tensor]) -> None:
    x, grad = layout(features(shape).float()), layout(noise(shape).float())
    residual = exact_gram(noise((1, shape[1], 9))).float()
    expected = grad.double() + 0.01 * torch.einsum("bij,bj...->bi...", residual.double(), x.double())
    ops.layer_backward_(grad, x, residual=residual, style=0.01)
    assert relative_error(grad, expected * (x > 0)) <= 1e-6


@both_layouts
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1.7])
def test_layer_backward_of_equal_features_is_accurate(value: float, layout: Callable[[Tensor], Tensor]) -> None:
    x, residual = layout(torch.full((1, 512, 5, 7), value)), torch.full((512, 512), 0.3)
    grad = torch.zeros_like(x)
    ops.layer_backward_(grad, x, residual=residual, style=1.0)
    expected = 512 * x.double() * residual[0, 0].double()
    assert relative_error(grad, expected) <= 1e-6


@both_layouts
def test_the_mask_is_zero_where_the_feature_is(layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(torch.tensor([-1.0, -0.0, 0.0, 1e-45, 1.0, float("inf")]).view(1, 1, 2, 3))
    grad = torch.full_like(x, 3.0)
    assert ops.layer_backward_(grad, x).flatten().tolist() == [0, 0, 0, 3, 3, 3]


@both_layouts
def test_without_terms_the_gradient_is_unchanged(layout: Callable[[Tensor], Tensor]) -> None:
    x, grad = layout(noise((2, 3, 4, 5))), layout(noise((2, 3, 4, 5), 2))
    before = grad.clone()
    assert torch.equal(ops.layer_backward_(grad, x, relu=False), before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@both_layouts
def test_only_the_gradient_is_written(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    shape = (2, 19, 7, 13)
    memory = torch.full((2 * 19 * 7 * 13 + 16,), 5.0, dtype=dtype)
    grad = memory[8:-8].view(shape) if layout is contiguous else memory[8:-8].view(2, 7, 13, 19).movedim(-1, 1)
    others = [
        layout(features(shape).to(dtype)),
        exact_gram(features(shape)).to(torch.promote_types(dtype, torch.float32)),
    ]
    before = [t.clone() for t in others]
    ops.layer_backward_(grad, others[0], residual=others[1], style=0.1, target=layout(features(shape, 2).to(dtype)))
    assert (memory[:8] == 5).all()
    assert (memory[-8:] == 5).all()
    assert all(torch.equal(a, b) for a, b in zip(others, before, strict=True))


def test_a_term_without_its_tensor_is_zero() -> None:
    x, grad = features((1, 3, 4, 4)), noise((1, 3, 4, 4))
    expected = grad * (x > 0)
    assert torch.equal(ops.layer_backward_(grad, x, style=7.0, content=9.0), expected)


def test_the_residual_is_shared_by_the_batch_or_one_each() -> None:
    x, residual = features((2, 3, 4, 4)), exact_gram(features((1, 3, 9)))[0]
    shared, each = torch.zeros_like(x), torch.zeros_like(x)
    ops.layer_backward_(shared, x, residual=residual, style=1.0)
    ops.layer_backward_(each, x, residual=residual.expand(2, 3, 3), style=1.0)
    assert torch.equal(shared, each)
    assert shared.any()


@both_layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_of_moments_is_a_product_and_a_shift(
    dtype: torch.dtype, layout: Callable[[Tensor], Tensor]
) -> None:
    """For loss(F) = <above, F> + sum (m - m')^2 + sum (G - A)^2 with the mean m, autograd's derivative in float64."""
    shape = (2, 37, 9, 11)
    leaf = features(shape).to(dtype).double().requires_grad_()
    x, above = layout(leaf.detach().to(dtype)), noise(shape, 2).to(dtype)
    mean, gram = leaf.flatten(2).mean(2), exact_gram(leaf, scale=1 / 99)
    loss = (above * leaf).sum() + (mean - 0.3).square().sum() + (gram - 0.2).square().sum()
    (expected,) = torch.autograd.grad(loss, leaf)
    wide = torch.promote_types(dtype, torch.float32)
    residual, shift = (gram - 0.2).detach().to(wide), (2 / 99 * (mean - 0.3)).detach().to(wide)
    grad = layout(above.clone())
    ops.layer_backward_(grad, x, residual=residual, style=4 / 99, shift=shift, relu=False)
    assert relative_error(grad, expected) <= BOUNDS[dtype]


def test_a_shift_is_shared_by_the_batch_or_one_each() -> None:
    x, residual, shift = features((2, 3, 4, 4)), torch.zeros(3, 3), torch.tensor([1.0, -2.0, 0.5])
    grad = torch.zeros_like(x)
    ops.layer_backward_(grad, x, residual=residual, shift=shift, relu=False)
    assert torch.equal(grad, shift.double()[:, None, None].expand(2, 3, 4, 4))
    ops.layer_backward_(grad, x, residual=residual, shift=torch.stack((shift, -shift)), relu=False)
    assert torch.equal(grad[:, :, 0, 0], torch.stack((2 * shift, 0 * shift)).double())


@pytest.mark.parametrize(
    ("shift", "error", "message"),
    [
        (3, TypeError, "expected shift to be a torch.Tensor, got int"),
        (torch.ones(4), ValueError, r"expected shift of shape \(2, 3\) or \(3,\), got \(4,\)"),
        (torch.ones(3, 3), ValueError, r"expected shift of shape \(2, 3\) or \(3,\), got \(3, 3\)"),
        (torch.ones(1, 2, 3), ValueError, r"expected shift of shape \(2, 3\) or \(3,\), got \(1, 2, 3\)"),
        (torch.ones(3, dtype=torch.int64), TypeError, "expected shift of a floating dtype, got torch.int64"),
        (torch.ones(3, device="meta"), ValueError, "expected shift on cpu like x, got meta"),
    ],
    ids=["no tensor", "C", "B", "axes", "integers", "device"],
)
def test_an_invalid_shift_is_an_error(shift: Any, error: type[Exception], message: str) -> None:
    x = features((2, 3, 4, 4))
    with pytest.raises(error, match=f"^layer_backward_: {message}"):
        ops.layer_backward_(torch.zeros_like(x), x, residual=torch.eye(3), shift=shift)


def test_a_shift_without_a_residual_is_an_error() -> None:
    x = features((2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"^layer_backward_: expected a residual with shift$"):
        ops.layer_backward_(torch.zeros_like(x), x, shift=torch.ones(3))


@pytest.mark.parametrize("leaf", ["x", "residual", "weight", "shift", "target"])
def test_requiring_a_gradient_is_an_error(leaf: str) -> None:
    t = {"x": noise((1, 3, 4, 4)), "target": noise((1, 3, 4, 4), 2)}
    t |= {"residual": torch.eye(3).double(), "weight": noise((4, 4), 3), "shift": noise((1, 3), 4)}
    t[leaf].requires_grad_()
    with pytest.raises(RuntimeError, match=f"layer_backward_: has no derivative, but {leaf} requires a gradient; pass"):
        ops.layer_backward_(torch.zeros(1, 3, 4, 4, dtype=torch.float64), **t)
    with torch.no_grad():
        ops.layer_backward_(torch.zeros(1, 3, 4, 4, dtype=torch.float64), **t)


def test_autograd_notices_that_the_gradient_was_overwritten() -> None:
    leaf = noise((1, 3, 4, 4)).requires_grad_()
    kept = leaf * 1
    product = kept * kept  # keeps `kept` for its backward
    with torch.no_grad():
        ops.layer_backward_(kept, features((1, 3, 4, 4)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
