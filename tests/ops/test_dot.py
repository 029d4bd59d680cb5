"""The scalar product, against Python's exact sum of products in higher precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastnst.ops import reference

SIZES = [0, 1, 31, 33, 1025, 9216, 16384, 16385, 300_001]


def drawn(size: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dot_is_the_sum_of_products(size: int, dtype: torch.dtype) -> None:
    x, y = drawn(size, dtype, 0), drawn(size, dtype, 1)
    products = [a * b for a, b in zip(x.tolist(), y.tolist(), strict=True)]  # of float32 exact in float64
    exact, scale = math.fsum(products), math.fsum(map(abs, products))
    found = torch.ops.fastnst.dot(x, y)
    assert found.dtype == torch.float64
    assert found.shape == ()
    assert abs(found.item() - exact) <= (1e-6 if dtype == torch.float32 else 1e-14) * scale
    if size:
        assert abs(reference.dot(x, y).item() - exact) <= 1e-14 * scale


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dot_has_the_same_bits_with_any_number_of_threads(size: int, dtype: torch.dtype) -> None:
    x, y, before = drawn(size, dtype, 0), drawn(size, dtype, 1), torch.get_num_threads()
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(torch.ops.fastnst.dot(x, y))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_strided_vectors() -> None:
    x, y = drawn(2000, torch.float32, 0)[::2], drawn(3000, torch.float32, 1)[::3]
    assert torch.equal(torch.ops.fastnst.dot(x, y), torch.ops.fastnst.dot(x.clone(), y.clone()))


def test_not_finite_values_are_kept() -> None:
    x = torch.ones(40_000)
    x[39_999] = float("inf")
    assert torch.ops.fastnst.dot(x, torch.ones(40_000)).item() == math.inf
    x[5] = float("nan")
    assert math.isnan(torch.ops.fastnst.dot(x, torch.ones(40_000)).item())


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.fastnst.dot, (torch.rand(70), torch.rand(70)))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(3, 4), torch.rand(3, 4), "expected x of one dimension, got 2"),
        (torch.rand(4), torch.rand(5), "expected y of shape"),
        (torch.rand(4), torch.rand(4).double(), "expected y of the dtype of x"),
        (torch.rand(4).bfloat16(), torch.rand(4).bfloat16(), "expected x of dtype float32 or float64"),
    ],
)
def test_wrong_arguments(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"dot: {message}"):
        torch.ops.fastnst.dot(x, y)


def test_dot_has_no_derivative() -> None:
    with pytest.raises(RuntimeError, match=r"dot: has no derivative, but x requires a gradient; pass x.detach\(\)"):
        torch.ops.fastnst.dot(torch.rand(4, requires_grad=True), torch.rand(4))
