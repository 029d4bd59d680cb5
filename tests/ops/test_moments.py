from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from op_cases import DTYPES, Shape, channels_last, contiguous, exact_gram, features, noise, relative_error
from torch import Tensor

from fastnst import ops


@pytest.mark.parametrize("shape", [(1, 64, 181, 181), (1, 512, 64, 64), (1, 1, 2_000_000), (1, 3, 700_001)], ids=str)
def test_moments_of_large_features_are_accurate(shape: Shape) -> None:
    x = features(shape).float()
    mean, gram = ops.moments(x)
    assert relative_error(mean, x.double().flatten(2).mean(2)) <= 1e-6
    assert relative_error(gram, exact_gram(x.double())) <= 1e-6


def test_mean_far_from_zero_keeps_its_digits() -> None:
    x = (1000 + noise((1, 3, 500, 501))).float()
    mean, _ = ops.moments(x)
    assert relative_error(mean, x.double().flatten(2).mean(2)) <= 1e-7


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 130, 33, 31), (2, 5)], ids=str)
def test_gram_of_moments_is_gram(shape: Shape, dtype: torch.dtype) -> None:
    x = noise(shape).to(dtype)
    mean, gram = ops.moments(x, 0.3)
    assert torch.equal(gram, ops.gram(x, scale=0.3))
    assert mean.dtype == gram.dtype


def test_moments_give_the_covariance() -> None:
    x = noise((2, 5, 40, 41))
    mean, gram = ops.moments(x, 1 / 1640)
    expected = torch.stack([torch.cov(image.flatten(1), correction=0) for image in x])
    assert relative_error(gram - mean[:, :, None] * mean[:, None, :], expected) < 1e-12


def test_weights_of_sum_1_give_the_weighted_covariance() -> None:
    """As numpy computes it."""
    x, weight = noise((2, 5, 40, 41)), noise((2, 40, 41), 1).abs()
    weight /= weight.sum((1, 2), keepdim=True)
    mean, gram = ops.moments(x, weight=weight)
    expected = [np.cov(f, aweights=w, ddof=0) for f, w in zip(x.flatten(2).numpy(), weight.flatten(1), strict=True)]
    assert relative_error(gram - mean[:, :, None] * mean[:, None, :], torch.from_numpy(np.stack(expected))) < 1e-12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gram_of_weighted_moments_is_gram(dtype: torch.dtype) -> None:
    x, weight = noise((1, 130, 33, 31)).to(dtype), noise((33, 31), 1).abs()
    assert torch.equal(ops.moments(x, 0.3, weight=weight)[1], ops.gram(x, weight, 0.3))


@pytest.mark.parametrize("weight", [None, torch.empty(0)])
def test_mean_of_no_positions_is_zero(weight: Tensor | None) -> None:
    mean, gram = ops.moments(torch.empty(2, 3, 0), weight=weight)
    assert mean.tolist() == [[0, 0, 0]] * 2
    assert not gram.any()


def test_moments_of_half_features_do_not_overflow() -> None:
    x = torch.full((1, 2, 40, 40), 60000, dtype=torch.float16)
    mean, gram = ops.moments(x)
    assert mean.tolist() == [[60000, 60000]]
    assert relative_error(gram, exact_gram(x.double())) <= 1e-6


@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("shape", [(2, 3, 2, 3), (2, 3), (1, 2, 5)], ids=str)
def test_moments_gradients_are_right(shape: Shape, layout: Callable[[Tensor], Tensor]) -> None:
    x, weight = layout(noise(shape)).requires_grad_(), noise((shape[0], *shape[2:]), 1).abs().requires_grad_()

    def call(x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.moments(x, 0.3, weight=weight)

    for given in ((x,), (x, weight)):
        assert torch.autograd.gradcheck(call, given)
        assert torch.autograd.gradgradcheck(call, given)


def test_either_moment_alone_has_its_gradient() -> None:
    x = noise((2, 3, 4, 5)).requires_grad_()
    d = noise((2, 3, 3), 2)
    (by_mean,) = torch.autograd.grad(ops.moments(x)[0].sum(), x)
    assert relative_error(by_mean, torch.full_like(x, 1 / 20)) < 1e-15
    (by_gram,) = torch.autograd.grad(ops.moments(x)[1], x, d)
    assert torch.equal(by_gram, torch.autograd.grad(ops.gram(x), x, d)[0])
