from __future__ import annotations

import math
import platform
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from op_cases import DTYPES, LAYOUTS, Shape, contiguous, exact_variation, noise, relative_error
from torch import Tensor

from fastnst import ops

KINDS = ("anisotropic", "isotropic", "squared")
every_kind = pytest.mark.parametrize("kind", KINDS)


def variation_by_pixels(x: npt.NDArray[np.float64], kind: str) -> float:
    """The definition, pixel by pixel."""
    parts = []
    for plane in x.reshape(-1, *x.shape[2:]):
        height, width = plane.shape
        for i in range(height):
            for j in range(width):
                r = plane[i, j + 1] - plane[i, j] if j + 1 < width else 0.0
                d = plane[i + 1, j] - plane[i, j] if i + 1 < height else 0.0
                parts.append(
                    {"anisotropic": abs(r) + abs(d), "isotropic": math.hypot(r, d), "squared": r * r + d * d}[kind]
                )
    return math.fsum(parts)


def without_ties(shape: Shape) -> Tensor:
    """Values that differ by at least 0.1, so that a small perturbation changes the sign of no difference."""
    count = math.prod(shape)
    return 0.1 * torch.randperm(count, generator=torch.Generator().manual_seed(0)).double().view(shape)


@every_kind
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 1, 9), (1, 1, 9, 1), (2, 3, 17, 5), (1, 2, 33, 16)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_total_variation_is_the_sum_over_pixels(shape: Shape, kind: str, dtype: torch.dtype) -> None:
    x = noise(shape).to(dtype)
    expected = torch.tensor(variation_by_pixels(x.double().numpy(), kind), dtype=torch.float64)
    assert relative_error(ops.total_variation(x, kind), expected) <= (1e-13 if dtype == torch.float64 else 1e-6)


@every_kind
def test_total_variation_of_a_large_image_is_accurate(kind: str) -> None:
    x = noise((1, 3, 801, 871)).float().requires_grad_()
    exact = x.detach().double().requires_grad_()
    value, expected = ops.total_variation(x, kind), exact_variation(exact, kind)
    assert relative_error(value, expected) <= 1e-6
    (gradient,) = torch.autograd.grad(value, x)
    assert relative_error(gradient, torch.autograd.grad(expected, exact)[0]) <= 1e-6


@every_kind
def test_a_flat_image_has_no_variation_and_no_gradient(kind: str) -> None:
    x = torch.full((1, 3, 20, 9), 0.7, requires_grad=True)
    value = ops.total_variation(x, kind)
    assert value == 0
    assert not torch.autograd.grad(value, x)[0].any()


@every_kind
def test_the_gradient_of_a_step_is_along_it(kind: str) -> None:
    x = torch.zeros(1, 1, 3, 4)
    x[..., 2:] = 1
    x.requires_grad_()
    value = ops.total_variation(x, kind)
    assert value == 3
    (gradient,) = torch.autograd.grad(value, x)
    slope = 2.0 if kind == "squared" else 1.0
    assert gradient[0, 0].tolist() == [[0, -slope, slope, 0]] * 3


@pytest.mark.parametrize("kind", ["isotropic", "squared"])
def test_nan_propagates_to_the_gradient(kind: str) -> None:
    x = noise((1, 1, 5, 5)).float()
    x[0, 0, 2, 2] = float("nan")
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(ops.total_variation(x, kind), x)
    assert gradient[0, 0, 2, 2].isnan()


@every_kind
def test_total_variation_of_half_images_does_not_overflow(kind: str) -> None:
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float16)
    x[..., 1] = 60000
    value = float(x[0, 0, 0, 1])
    assert ops.total_variation(x, kind) == (value**2 if kind == "squared" else value)


@every_kind
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_total_variation_gradients_are_right(kind: str, layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(without_ties((2, 2, 3, 3))).requires_grad_()

    def call(x: Tensor) -> Tensor:
        return ops.total_variation(x, kind)

    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


@every_kind
@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (1, 1, 4, 1), (2, 1, 17, 2)], ids=str)
def test_total_variation_gradients_of_narrow_images_are_right(kind: str, shape: Shape) -> None:
    x = contiguous(without_ties(shape)).requires_grad_()

    def call(x: Tensor) -> Tensor:
        return ops.total_variation(x, kind)

    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


@every_kind
def test_the_gradient_is_linear_in_the_incoming_gradient(kind: str) -> None:
    """The derivative with respect to it only, for an image that requires no gradient."""
    above, x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), without_ties((1, 2, 4, 5))

    def call(above: Tensor) -> Tensor:
        gradient: Tensor = torch.ops.fastnst.total_variation_backward(above, x, kind)
        return gradient

    assert torch.autograd.gradcheck(call, above)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the mode of the processor is x86's")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["isotropic", "squared"])
def test_subnormal_squares_count_as_zero_and_the_mode_of_the_thread_is_kept(kind: str, dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).tiny
    x = torch.zeros(1, 1, 4, 4, dtype=dtype, requires_grad=True)
    with torch.no_grad():
        x[0, 0, 1, 1] = tiny**0.5 / 4  # its square is tiny / 16, subnormal
    value = ops.total_variation(x, kind)
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert x.grad.count_nonzero() == (0 if kind == "isotropic" else 5)
    assert (torch.full((1,), tiny, dtype=dtype) / 4).item() > 0
