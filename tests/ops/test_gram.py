from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import DTYPES, Shape, channels_last, contiguous, exact_gram, features, noise, relative_error
from torch import Tensor

from fastnst import ops

LARGE: tuple[Shape, ...] = ((1, 64, 181, 181), (1, 512, 64, 64), (1, 1, 2_000_000), (1, 3, 700_001), (2, 130, 97, 101))


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
def test_gram_of_large_features_is_accurate(shape: Shape, layout: Callable[[Tensor], Tensor]) -> None:
    x = features(shape).float()
    exact = exact_gram(x.double())
    got = ops.gram(layout(x))
    assert relative_error(got, exact) <= 1e-6
    length = exact.diagonal(dim1=1, dim2=2).sqrt()
    each = (got.double() - exact).abs() / (length[:, :, None] * length[:, None, :])
    assert each.max() <= 1e-6  # every entry, relative to its Cauchy-Schwarz bound


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1.7, 60000.0, 1e-12])
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [19, 300])
def test_gram_of_a_flat_picture_is_accurate(
    value: float, layout: Callable[[Tensor], Tensor], dtype: torch.dtype, channels: int
) -> None:
    """All terms are equal, and so are their rounding errors, which accumulate instead of canceling."""
    x = layout(torch.full((1, channels, 90, 91), value, dtype=dtype))
    assert relative_error(ops.gram(x), exact_gram(x.double())) <= 1e-6


@pytest.mark.parametrize("shape", [(1, 64, 181, 181), (1, 256, 64, 64), (1, 3, 700_001)], ids=str)
def test_gram_of_large_features_is_accurate_in_float64(shape: Shape) -> None:
    x = features(shape)
    assert relative_error(ops.gram(x), exact_gram(x)) <= 1e-13


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("shape", [(1, 64, 91, 93), (1, 512, 33, 31)], ids=str)
def test_gram_of_half_features_is_as_accurate_as_float32(
    shape: Shape, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    x = layout(features(shape).to(dtype))
    got = ops.gram(x)
    assert got.dtype == torch.float32
    assert relative_error(got, exact_gram(x.double())) <= 1e-6


def test_gram_of_half_features_does_not_overflow() -> None:
    x = torch.full((1, 2, 40, 40), 60000, dtype=torch.float16)
    assert relative_error(ops.gram(x), exact_gram(x.double())) <= 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 130, 33, 31), (2, 257, 5, 5)], ids=str)
def test_gram_is_exactly_symmetric(shape: Shape, weighted: bool, dtype: torch.dtype) -> None:
    x = noise(shape).to(dtype)
    g = ops.gram(x, noise((shape[0], *shape[2:])) if weighted else None, scale=0.37)
    assert torch.equal(g, g.mT)


def test_gram_of_integers_is_exact() -> None:
    x = torch.arange(24.0).view(1, 2, 3, 4)
    assert ops.gram(x).tolist() == [[[506.0, 1298.0], [1298.0, 3818.0]]]


def test_gram_is_invariant_to_a_permutation_of_positions() -> None:
    x = noise((1, 5, 16, 16))
    shuffled = x.flatten(2)[..., torch.randperm(256)].view_as(x)
    assert relative_error(ops.gram(shuffled), ops.gram(x)) < 1e-13


def test_a_nan_affects_only_its_row_and_column_of_the_gram_matrix() -> None:
    x = features((2, 19, 8, 9)).float()
    clean = ops.gram(x)
    x[0, 7, 3, 3] = float("nan")
    g = ops.gram(x)
    assert g[0, 7].isnan().all()
    assert g[0, :, 7].isnan().all()
    g[0, 7], g[0, :, 7] = clean[0, 7], clean[0, :, 7]
    assert torch.equal(g, clean)


@pytest.mark.parametrize("shape", [(7, 9), (2, 7, 9), (2, 1, 9), (1, 7, 9), (9,), (2, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.uint8, torch.int64], ids=str)
def test_gram_weight_broadcasts_over_positions(shape: Shape, dtype: torch.dtype) -> None:
    x = features((2, 5, 7, 9)).float()
    weight = (3 * noise(shape).abs()).to(dtype)
    full = weight.double().expand(2, 7, 9)
    assert relative_error(ops.gram(x, weight), exact_gram(x.double(), full)) <= 1e-6


def test_gram_of_two_axes_is_the_outer_product() -> None:
    x = noise((3, 5))
    assert torch.equal(ops.gram(x), x[:, :, None] * x[:, None, :])


@pytest.mark.parametrize("scale", [0, 2, -0.5])
def test_gram_scale_is_any_number(scale: float) -> None:
    x = noise((1, 5, 4, 4))
    assert relative_error(ops.gram(x, scale=scale), exact_gram(x, scale=scale)) < 1e-13


GRADCHECKS = [
    pytest.param((2, 3, 2, 3), contiguous, False, id="contiguous"),
    pytest.param((2, 3, 2, 3), channels_last, False, id="channels_last"),
    pytest.param((2, 3, 2, 3), contiguous, True, id="weighted"),
    pytest.param((2, 3), contiguous, True, id="two axes"),
    pytest.param((1, 2, 2, 1, 3), contiguous, False, id="five axes"),
]


@pytest.mark.parametrize(("shape", "layout", "weighted"), GRADCHECKS)
def test_gram_gradients_are_right(shape: Shape, layout: Callable[[Tensor], Tensor], weighted: bool) -> None:
    x = layout(noise(shape)).requires_grad_()
    weight = noise((shape[0], *shape[2:]), 2) if weighted else None

    def call(x: Tensor) -> Tensor:
        return ops.gram(x, weight, 0.3)

    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
def test_gram_takes_any_gradient_of_its_output(layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(noise((2, 5, 4, 3))).requires_grad_()
    d = noise((2, 5, 5), 2)
    expected = torch.einsum("bij,bjhw->bihw", d + d.mT, x.detach())
    for given in (d, d.mT.contiguous().mT, torch.stack([d, d], -1)[..., 0]):
        (got,) = torch.autograd.grad(ops.gram(x), x, given)
        assert relative_error(got, expected) < 1e-13
    (of_sum,) = torch.autograd.grad(ops.gram(x).sum(), x)
    assert relative_error(of_sum, 2 * x.detach().sum(1, keepdim=True).expand(x.shape)) < 1e-13
