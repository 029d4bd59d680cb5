"""Every op with every order of axes in memory, dense, padded, strided and expanded: what PyTorch checks of an op, and
Inductor, whose code relies on the strides that the fake kernels declare."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from op_cases import features, noise
from test_ops_registered import Arguments, every_op
from torch import Tensor
from torch.utils import _pytree as pytree

SHAPES = ((2, 3, 4, 6), (2, 3, 5), (2, 3, 2, 4, 3))
# Every order of three and four axes, and every sixth of five.
ORDERS = [
    (shape, order)
    for shape in SHAPES
    for order in list(itertools.permutations(range(len(shape))))[:: 6 if len(shape) == 5 else 1]
]


def dense(x: Tensor) -> Tensor:
    return x


def padded(x: Tensor) -> Tensor:
    """A part of a larger map, along every axis."""
    larger = torch.nn.functional.pad(x, (1, 2) * x.dim(), value=float("nan"))
    return larger[tuple(slice(1, n + 1) for n in x.shape)]


def strided(x: Tensor) -> Tensor:
    """Every second value along every axis."""
    larger = torch.full([2 * n for n in x.shape], float("nan"), dtype=x.dtype)
    view = larger[tuple(slice(0, 2 * n, 2) for n in x.shape)]
    return view.copy_(x)


def expanded(x: Tensor) -> Tensor:
    """One value along the last axis in memory, and the first."""
    return x[:1, ..., :1].expand(x.shape)


VIEWS = (dense, padded, strided, expanded)
every_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)


def laid_out(shape: tuple[int, ...], order: tuple[int, ...], view: Callable[[Tensor], Tensor]) -> Tensor:
    """Features of a shape whose axes lie in memory in an order."""
    x = features(shape).float()
    return view(x.permute(order).contiguous()).permute([order.index(axis) for axis in range(len(shape))])


def calls(x: Tensor) -> dict[str, Arguments]:
    """Arguments of all ops, those that write in place among them where they take such features."""
    found = every_op(x)
    bias = noise(x.shape[1:2], 4).float()
    if 0 not in x.stride():
        found["bias_relu_"] = (x, bias)
        if x.is_contiguous() or x.movedim(1, -1).is_contiguous():
            grad = torch.empty_like(x).copy_(noise(tuple(x.shape), 6))
            residual, weight = torch.eye(x.shape[1]).expand(x.shape[0], -1, -1), torch.ones(x.shape[0], x[0, 0].numel())
            found["layer_backward_"] = (grad, x, residual, weight, 0.3, residual[..., 0], 2 * x, 0.1, True)
    if x.dim() == 4:
        pooled, y = torch.ops.fastnst.pool(x, "max")[0], torch.ops.fastnst.pool(x, "l2")[0]
        argmax = torch.ops.fastnst.pool(x, "max")[1]
        found["pool_backward max"] = (pooled, None, None, argmax, "max", *x.shape[2:], True)
        found["pool_backward l2"] = (pooled, x, y, None, "l2", *x.shape[2:], False)
    return found


@every_view
@pytest.mark.parametrize(("shape", "order"), ORDERS, ids=str)
@pytest.mark.sweep(19)
def test_opcheck(shape: tuple[int, ...], order: tuple[int, ...], view: Callable[[Tensor], Tensor]) -> None:
    for name, given in calls(laid_out(shape, order, view)).items():
        torch.library.opcheck(getattr(torch.ops.fastnst, name.split()[0]), given)


@every_view
@pytest.mark.slow
def test_inductor_gives_the_values_and_strides_of_eager(view: Callable[[Tensor], Tensor]) -> None:
    """Its own code reads the results by the strides of the fake kernels."""

    def arguments() -> list[dict[str, Arguments]]:
        return [calls(laid_out(shape, order, view)) for shape, order in ORDERS if len(shape) < 5]

    def every(given: list[dict[str, Arguments]]) -> list[tuple[Tensor, Tensor]]:
        found = []
        for each in given:
            for name, of_op in each.items():
                result = getattr(torch.ops.fastnst, name.split()[0])(*of_op)
                outputs = of_op[:1] if result is None else pytree.tree_leaves(result)
                found += [(y, y * 2 + 1) for y in outputs]
        return found

    torch.compiler.reset()
    pairs = zip(torch.compile(every, fullgraph=True)(arguments()), every(arguments()), strict=True)
    for got, wanted in pairs:
        for y, z in zip(got, wanted, strict=True):
            assert y.stride() == z.stride()
            torch.testing.assert_close(y, z)
    torch.compiler.reset()
