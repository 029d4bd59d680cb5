from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import (
    DTYPES,
    LAYOUTS,
    channels_last,
    contiguous,
    exact_pool,
    features,
    noise,
    relative_error,
    windows,
)
from torch import Tensor

from fastnst import ops

both_layouts = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
KINDS = ("max", "average", "l2")
every_kind = pytest.mark.parametrize("kind", KINDS)
NAN = float("nan")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_argmax_is_that_of_the_first_maximum_and_marks_those_above_zero(
    layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    x = layout(features((2, 19, 7, 13)).to(dtype))
    y, argmax = ops.pool_with_argmax(x)
    four = windows(x)
    assert argmax.dtype == torch.uint8
    assert argmax.stride() == y.stride()
    assert torch.equal(argmax.long(), four.argmax(-1) + 4 * (four.amax(-1) <= 0))


@both_layouts
def test_nan_is_the_largest(layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(torch.tensor([[1.0, NAN, -1.0, -2.0], [3.0, 2.0, -0.5, -4.0]]).view(1, 1, 2, 4))
    y, argmax = ops.pool_with_argmax(x)
    torch.testing.assert_close(y.flatten(), torch.tensor([NAN, -0.5]), equal_nan=True)
    assert argmax.flatten().tolist() == [1 + 4, 2 + 4]


@pytest.mark.parametrize("kind", ["average", "l2"])
def test_only_max_pooling_has_an_argmax(kind: str) -> None:
    _, argmax = ops.pool_with_argmax(noise((1, 2, 4, 4)), kind)
    assert (argmax.shape, argmax.dtype) == ((0,), torch.uint8)


@both_layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(6, 8), (7, 9), (2, 3), (3, 1)], ids=str)
def test_the_backward_of_relu_and_pool_needs_only_the_argmax(
    size: tuple[int, int], dtype: torch.dtype, layout: Callable[[Tensor], Tensor]
) -> None:
    z = noise((2, 5, *size)).to(dtype)
    leaf = z.double().requires_grad_()
    y, argmax = ops.pool_with_argmax(layout(z.relu()))
    grad = layout(noise(tuple(y.shape), 2).to(dtype))
    (expected,) = torch.autograd.grad(exact_pool(leaf.relu(), "max"), leaf, grad.double())
    got = torch.ops.fastnst.pool_backward(grad, None, None, argmax, "max", *size, True)
    assert relative_error(got, expected) == 0
    if min(size) > 3:
        assert got.stride() == layout(z).stride()


@both_layouts
@every_kind
def test_gradients_of_both_orders(kind: str, layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(noise((2, 3, 5, 6))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.pool(x, kind), x)
    assert torch.autograd.gradgradcheck(lambda x: ops.pool(x, kind), x)


def test_second_derivatives_under_the_mask_of_a_relu() -> None:
    _, argmax = ops.pool_with_argmax(noise((2, 3, 4, 5)) - 1)
    assert (argmax >= 4).any()
    grad = noise((2, 3, 2, 2), 2).requires_grad_()
    call = torch.ops.fastnst.pool_backward
    assert torch.autograd.gradcheck(lambda g: call(g, None, None, argmax, "max", 4, 5, True), grad)


@both_layouts
def test_opcheck_of_every_kind(layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(noise((2, 3, 5, 6)))
    for kind in ("max", "average"):
        torch.library.opcheck(torch.ops.fastnst.pool, (x, kind))
        y, argmax = ops.pool_with_argmax(x, kind)
        given = (argmax if kind == "max" else None, kind, 5, 6, kind == "max")
        torch.library.opcheck(torch.ops.fastnst.pool_backward, (torch.ones_like(y), None, None, *given))


def test_a_mask_without_argmax_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="pool_backward: expected relu with kind max only, got average"):
        torch.ops.fastnst.pool_backward(torch.ones(1, 1, 1, 1), None, None, None, "average", 2, 2, True)


def test_l2_of_values_whose_squares_half_precision_cannot_hold() -> None:
    x = torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)
    assert ops.pool(x, "l2").item() == 300


@pytest.mark.parametrize(("kind", "missing"), [("max", "argmax"), ("l2", "x")])
def test_the_error_names_the_missing_input_of_a_kind(kind: str, missing: str) -> None:
    with pytest.raises(RuntimeError, match=f"pool_backward: expected {missing} for this kind"):
        torch.ops.fastnst.pool_backward(torch.ones(1, 1, 1, 1), None, None, None, kind, 2, 2, False)


def test_argmax_is_uint8_in_the_layout_of_the_gradient() -> None:
    call, grad = torch.ops.fastnst.pool_backward, torch.ones(1, 2, 2, 2)
    with pytest.raises(RuntimeError, match="expected argmax of dtype uint8"):
        call(grad, None, None, torch.zeros(1, 2, 2, 2), "max", 4, 4, False)
    with pytest.raises(RuntimeError, match=r"expected argmax of shape \(1, 2, 2, 2\), got \(1, 2, 1, 2\)"):
        call(grad, None, None, torch.zeros(1, 2, 1, 2, dtype=torch.uint8), "max", 4, 4, False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "relu"), [("max", True), *((kind, False) for kind in KINDS)])  # only max has a mask
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_kernel_and_reference_agree(
    layout: Callable[[Tensor], Tensor], kind: str, dtype: torch.dtype, relu: bool
) -> None:
    for size in ((6, 8), (7, 9), (5, 1)):
        x = layout((noise((2, 5, *size)) - 0.5).to(dtype))
        ours, plain = torch.ops.fastnst.pool(x, kind), ops.reference.pool(x, kind)
        grad = layout(noise(tuple(ours[0].shape), 2).to(dtype))
        given = (grad, x, ours[0], ours[1], kind, *size, relu)
        got = (*ours, torch.ops.fastnst.pool_backward(*given))
        for a, b in zip(got, (*plain, ops.reference.pool_backward(*given)), strict=True):
            torch.testing.assert_close(a, b, rtol=2 * torch.finfo(dtype).eps, atol=1e-7, check_stride=a.numel() > 0)


@both_layouts
@every_kind
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (7, 9), (5, 1)], ids=str)
def test_bias_relu_and_pool_are_those_ops_one_after_another(
    size: tuple[int, int], keep: bool, kind: str, layout: Callable[[Tensor], Tensor]
) -> None:
    x, bias = layout(noise((2, 5, *size))), noise((5,), 2)
    activated = ops.bias_relu_(layout(x.clone()), bias)
    given = layout(x.clone())
    found = torch.ops.fastnst.bias_relu_pool_(given, bias, kind, keep)
    assert not keep or torch.equal(given, activated)
    for a, b in zip(found, ops.pool_with_argmax(activated, kind), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, check_stride=a.numel() > 0)
    plain = layout(x.clone())
    ops.reference.bias_relu_(plain, bias)
    for a, b in zip(found, ops.reference.pool(plain, kind), strict=True):
        torch.testing.assert_close(a, b)


@both_layouts
@pytest.mark.parametrize("keep", [False, True])
def test_opcheck_of_bias_relu_and_pool(keep: bool, layout: Callable[[Tensor], Tensor]) -> None:
    x, bias = layout(noise((2, 3, 5, 6))), noise((3,), 2)
    for kind in ("max", "average"):
        torch.library.opcheck(torch.ops.fastnst.bias_relu_pool_, (x, bias, kind, keep))


def test_bias_relu_and_pool_have_no_derivative() -> None:
    with pytest.raises(RuntimeError, match="bias_relu_pool_: has no derivative"):
        torch.ops.fastnst.bias_relu_pool_(noise((1, 2, 4, 4)), torch.ones(2, requires_grad=True), "max", True)
