"""``torch.ops.fastnst.*`` as PyTorch sees them: schema, autograd registration, fake kernels, AOT dispatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_cases import (
    DTYPES,
    LAYOUTS,
    accumulated,
    channels_last,
    contiguous,
    cropped_channels_last,
    eighths,
    exact_gram,
    exact_pool,
    features,
    noise,
    reversed_axes,
)
from torch import Tensor

from fastnst.ops import reference

SHAPE = (2, 3, 4, 5)
Arguments = tuple[Any, ...]


def arguments(x: Tensor, wanted: bool) -> dict[str, Arguments]:
    """Arguments of every registered op for the features x; ``wanted`` asks all inputs that may for a gradient."""
    dtype, matrix = x.dtype, accumulated(x.dtype)
    shape = tuple(x.shape)

    def leaf(t: Tensor) -> Tensor:
        return t.detach().requires_grad_(wanted)

    g = exact_gram(features(shape, 2)).to(matrix)
    weight = noise((shape[0], shape[2] * shape[3]), 3).to(matrix)
    target = leaf(features(shape, 4).to(dtype))
    one, shift = leaf(torch.tensor(0.7, dtype=matrix)), leaf(noise(shape[:2], 5).to(matrix))
    y = exact_pool(x.detach().double(), "l2").to(dtype)
    pooled, x = leaf(noise(tuple(y.shape), 6).to(dtype)), leaf(x)
    return {
        "gram": (x, weight, 0.3),
        "gram_backward": (leaf(g), x, weight, 0.3, shift),
        "moments": (x, 0.3),
        "style_loss": (x, leaf(g), weight, 0.3),
        "content_loss": (x, target),
        "content_loss_backward": (one, x, target),
        "total_variation": (x, "isotropic"),
        "total_variation_backward": (one, x, "isotropic"),
        "pool": (x, "l2"),
        "pool_backward": (pooled, x, leaf(y), None, "l2", *shape[2:], False),
    }


NAMES = tuple(arguments(features(SHAPE), False))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "wanted"), [(torch.float32, False), *((dtype, True) for dtype in DTYPES)], ids=str)
def test_opcheck(name: str, wanted: bool, dtype: torch.dtype) -> None:
    x = features(SHAPE).to(dtype)
    torch.library.opcheck(getattr(torch.ops.fastnst, name), arguments(x, wanted)[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "layout", [channels_last, cropped_channels_last, reversed_axes], ids=lambda layout: layout.__name__
)
def test_opcheck_of_layouts(name: str, layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(features(SHAPE).float())
    torch.library.opcheck(getattr(torch.ops.fastnst, name), arguments(x, False)[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (1, 1, 1, 1)], ids=str)
def test_opcheck_of_odd_shapes(name: str, shape: tuple[int, ...]) -> None:
    x = features(shape).float()
    torch.library.opcheck(getattr(torch.ops.fastnst, name), arguments(x, False)[name])


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("name", ["gram_backward", "content_loss_backward", "total_variation_backward"])
def test_opcheck_of_expanded_features(name: str, axis: int) -> None:
    x = features(SHAPE).float().narrow(axis, 0, 1).expand(SHAPE)
    torch.library.opcheck(getattr(torch.ops.fastnst, name), arguments(x, False)[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
def test_opcheck_of_the_op_that_writes(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x, target = layout(features(SHAPE).to(dtype)), features(SHAPE, 2).to(dtype)
    grad = layout(noise(SHAPE).to(dtype))
    residual = exact_gram(features(SHAPE, 3)).to(accumulated(dtype))
    weight = noise((2, 20)).to(accumulated(dtype))
    for given in ((residual, weight, 0.3, target, 0.1, True), (None, None, 0.0, None, 0.0, False)):
        torch.library.opcheck(torch.ops.fastnst.tapped_backward_, (grad, x, *given))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
def test_opcheck_of_bias_and_relu(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x, bias = layout(eighths(noise(SHAPE)).to(dtype)), eighths(noise((3,), 2)).to(dtype)
    torch.library.opcheck(torch.ops.fastnst.bias_relu_, (x, bias))
    target = exact_gram(features(SHAPE, 3)).to(accumulated(dtype))
    torch.library.opcheck(torch.ops.fastnst.bias_relu_style_loss, (x, bias, target, 0.3))
    ours = torch.ops.fastnst.bias_relu_style_loss(x, bias, target, 0.3)
    for a, b in zip(ours, reference.bias_relu_style_loss(x, bias, target, 0.3), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, check_stride=True)


def _reference(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(reference, name)
    return function


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_reference_gives_what_the_kernels_give(
    name: str, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    """Also in shape, dtype and strides: compiled code for a device without kernels relies on them."""
    given = arguments(layout(features((2, 7, 5, 6)).to(dtype)), False)[name]
    ours, plain = getattr(torch.ops.fastnst, name)(*given), _reference(name)(*given)
    for a, b in zip(*((y,) if isinstance(y, Tensor) else y for y in (ours, plain)), strict=True):
        if not a.is_floating_point():
            assert torch.equal(a, b)
            continue
        rtol = {torch.float64: 1e-12, torch.float32: 1e-5}.get(a.dtype, 2 * torch.finfo(a.dtype).eps)
        atol = {torch.float64: 1e-12, torch.float32: 1e-5}.get(a.dtype, 1e-4)
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, check_stride=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
def test_the_reference_writes_what_the_kernel_writes(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x, target = layout(features(SHAPE).to(dtype)), features(SHAPE, 2).to(dtype)
    residual, weight = exact_gram(features(SHAPE, 3)).to(accumulated(dtype)), noise((2, 20)).to(accumulated(dtype))
    ours, plain = (layout(noise(SHAPE).to(dtype)) for _ in range(2))
    torch.ops.fastnst.tapped_backward_(ours, x, residual, weight, 0.3, target, 0.1, True)
    reference.tapped_backward_(plain, x, residual, weight, 0.3, target, 0.1, True)
    torch.testing.assert_close(ours, plain)
