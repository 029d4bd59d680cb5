"""``torch.ops.fastnst.*`` as PyTorch sees them: schema, autograd registration, fake kernels, AOT dispatch."""

from __future__ import annotations

import itertools
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
from torch.utils import _pytree as pytree

from fastnst.ops import reference

SHAPE = (2, 3, 4, 5)
Arguments = tuple[Any, ...]


def arguments(x: Tensor, wanted: bool) -> dict[str, Arguments]:
    """Arguments of every registered op for features x; with ``wanted`` all differentiable inputs require a gradient."""
    dtype, matrix = x.dtype, accumulated(x.dtype)
    shape = tuple(x.shape)

    def leaf(t: Tensor) -> Tensor:
        return t.detach().requires_grad_(wanted)

    g = exact_gram(features(shape, 2)).to(matrix)
    weight = leaf(noise((shape[0], shape[2] * shape[3]), 3).to(matrix))
    target = leaf(features(shape, 4).to(dtype))
    one, shift = leaf(torch.tensor(0.7, dtype=matrix)), leaf(noise(shape[:2], 5).to(matrix))
    y = exact_pool(x.detach().double(), "l2").to(dtype)
    pooled, x = leaf(noise(tuple(y.shape), 6).to(dtype)), leaf(x)
    return {
        "gram": (x, weight, 0.3),
        "gram_backward": (leaf(g), x, weight, 0.3, shift),
        "moments": (x, weight, 0.3),
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
@pytest.mark.sweep(3)
def test_opcheck(name: str, wanted: bool, dtype: torch.dtype) -> None:
    x = features(SHAPE).to(dtype)
    torch.library.opcheck(getattr(torch.ops.fastnst, name), arguments(x, wanted)[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "layout", [channels_last, cropped_channels_last, reversed_axes], ids=lambda layout: layout.__name__
)
@pytest.mark.sweep(3)
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
def test_opcheck_of_layer_backward(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x, target = layout(features(SHAPE).to(dtype)), features(SHAPE, 2).to(dtype)
    grad = layout(noise(SHAPE).to(dtype))
    residual = exact_gram(features(SHAPE, 3)).to(accumulated(dtype))
    weight, shift = noise((2, 20)).to(accumulated(dtype)), noise((2, 3), 4).to(accumulated(dtype))
    for given in ((residual, weight, 0.3, shift, target, 0.1, True), (None, None, 0.0, None, None, 0.0, False)):
        torch.library.opcheck(torch.ops.fastnst.layer_backward_, (grad, x, *given))


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


def permutations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Sizes, some of them 1, with every order of the axes in memory."""
    shapes = [(2, 3, 4, 6), (1, 3, 4, 6), (2, 1, 4, 6), (2, 3, 1, 6), (2, 3, 4, 1), (1, 1, 4, 6), (1, 3, 1, 1)]
    shapes += [(2, 3, 5), (1, 3, 5), (2, 3, 2, 3, 2), (1, 3, 2, 1, 4)]
    return [(shape, order) for shape in shapes for order in itertools.permutations(range(len(shape)))]


def on_meta(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def strides_taken(x: Tensor) -> list[int]:
    """The strides along axes of more than one value; others have no effect, and PyTorch does not check them."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1] if x.numel() else []


def every_op(x: Tensor) -> dict[str, Arguments]:
    """Arguments of every op that returns tensors, for features of any number of axes."""
    shape, dtype, matrix = tuple(x.shape), x.dtype, accumulated(x.dtype)
    g = exact_gram(features(shape, 2)).to(matrix)
    weight, shift = noise((shape[0], x.shape[2:].numel()), 3).to(matrix), noise(shape[:2], 5).to(matrix)
    one, bias = torch.tensor(0.7, dtype=matrix), noise(shape[1:2], 4).to(dtype)
    found: dict[str, Arguments] = {
        "gram": (x, weight, 0.3),
        "gram_backward": (g, x, weight, 0.3, shift),
        "moments": (x, weight, 0.3),
        "style_loss": (x, g, weight, 0.3),
        "content_loss": (x, 2 * x),
        "content_loss_backward": (one, x, 2 * x),
        "bias_relu_style_loss": (x, bias, g, 0.3),
    }
    if x.dim() == 4:
        size, kernel = shape[2:], noise((5, shape[1], 3, 3), 7).to(dtype)
        found |= {
            "total_variation": (x, "isotropic"),
            "total_variation_backward": (one, x, "isotropic"),
            **{f"pool {kind}": (x, kind) for kind in reference.POOLS},
            "pool_backward average": (x, None, None, None, "average", 2 * size[0] + 1, 2 * size[1], False),
            "conv3x3": (x, kernel, noise((5,), 8).to(dtype), True, "replicate"),
            "conv3x3_backward": (x, kernel.transpose(0, 1), None, None, *size, True),
        }
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("shape", "order"), permutations(), ids=str)
@pytest.mark.sweep(3)
def test_strides_are_those_of_the_fake_kernels_for_any_order_of_axes(
    shape: tuple[int, ...], order: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Compiled code relies on them: of the kernels and of the reference, for dense and other memory."""
    back = [order.index(axis) for axis in range(len(shape))]
    dense = torch.empty([shape[axis] for axis in order], dtype=dtype).permute(back)
    larger = torch.empty([2 * shape[axis] for axis in order], dtype=dtype).permute(back)
    for x in (dense, larger[tuple(slice(0, 2 * n, 2) for n in shape)]):
        x.copy_(features(shape))
        for name, given in every_op(x).items():
            op = name.split()[0]
            meta = pytree.tree_map_only(Tensor, on_meta, list(given))
            predicted = pytree.tree_leaves(getattr(torch.ops.fastnst, op)(*meta))
            for call in (getattr(torch.ops.fastnst, op), _reference(op)):
                for y, z in zip(pytree.tree_leaves(call(*given)), predicted, strict=True):
                    assert (y.shape, y.dtype, strides_taken(y)) == (z.shape, z.dtype, strides_taken(z)), (name, call)


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
    shift = noise((2, 3), 4).to(accumulated(dtype))
    ours, plain = (layout(noise(SHAPE).to(dtype)) for _ in range(2))
    torch.ops.fastnst.layer_backward_(ours, x, residual, weight, 0.3, shift, target, 0.1, True)
    reference.layer_backward_(plain, x, residual, weight, 0.3, shift, target, 0.1, True)
    torch.testing.assert_close(ours, plain)
