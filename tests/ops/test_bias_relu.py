from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import DTYPES, LAYOUTS, exact_bias_relu, exact_gram, features, noise, relative_error
from torch import Tensor

from fastnst import ops

SHAPE = (2, 19, 7, 13)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_any_layout_is_written_in_place(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x, bias = layout(noise(SHAPE).to(dtype)), noise(SHAPE[1:2], 2).to(dtype)
    expected = exact_bias_relu({"x": x.double(), "bias": bias.double()})
    address, strides = x.data_ptr(), x.stride()
    assert ops.bias_relu_(x, bias) is x
    assert (x.data_ptr(), x.stride()) == (address, strides)
    assert relative_error(x, expected) <= torch.finfo(dtype).eps


def test_nan_is_kept_and_negative_values_become_zero() -> None:
    x = torch.tensor([-1.0, -0.5, float("nan"), float("inf"), -float("inf"), 2.0]).view(1, 1, 2, 3)
    ops.bias_relu_(x, torch.tensor([0.5]))
    torch.testing.assert_close(x.flatten(), torch.tensor([0, 0, float("nan"), float("inf"), 0, 2.5]), equal_nan=True)


def test_with_the_style_loss_the_input_is_not_modified() -> None:
    x, bias = noise(SHAPE).float(), noise(SHAPE[1:2], 2).float()
    before = x.clone()
    target = exact_gram(features(SHAPE, 3)).float()
    y, loss, residual = ops.bias_relu_style_loss(x, bias, target, 0.1)
    assert torch.equal(x, before)
    assert torch.equal(y, ops.bias_relu_(x.clone(), bias))
    expected = ops.style_loss_and_residual(y, target, scale=0.1)
    torch.testing.assert_close((loss, residual), expected)


def test_one_target_applies_to_the_batch() -> None:
    x, bias = noise(SHAPE), noise(SHAPE[1:2], 2)
    target = exact_gram(features((1, *SHAPE[1:]), 3))
    shared = ops.bias_relu_style_loss(x, bias, target[0])
    each = ops.bias_relu_style_loss(x, bias, target.expand(2, -1, -1))
    assert all(torch.equal(a, b) for a, b in zip(shared, each, strict=True))


@pytest.mark.parametrize("leaf", ["x", "bias"])
def test_requiring_a_gradient_is_an_error(leaf: str) -> None:
    t = {"x": noise(SHAPE), "bias": noise(SHAPE[1:2], 2)}
    t[leaf].requires_grad_()
    target = torch.zeros(19, 19, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=f"bias_relu_: has no derivative, but {leaf} requires a gradient"):
        ops.bias_relu_(t["x"], t["bias"])
    with pytest.raises(RuntimeError, match=f"bias_relu_style_loss: has no derivative, but {leaf} requires"):
        ops.bias_relu_style_loss(t["x"], t["bias"], target)
    with torch.no_grad():
        assert torch.equal(ops.bias_relu_style_loss(t["x"], t["bias"], target)[0], ops.bias_relu_(t["x"], t["bias"]))


def test_autograd_notices_that_x_was_overwritten() -> None:
    leaf = noise(SHAPE).requires_grad_()
    kept = leaf * 1
    product = kept * kept  # keeps `kept` for its backward
    with torch.no_grad():
        ops.bias_relu_(kept, noise(SHAPE[1:2]))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
