"""Forward-mode differentiation and the transforms of ``torch.func``: right for every op with a derivative, an error for
the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_cases import CASES, DIFFERENTIABLE, DTYPES, Case, Tensors, accumulated, doubles, gradients, noise
from test_ops_registered import NAMES, arguments
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from fastnst import ops

SHAPE = (2, 3, 6, 5)
Function = Callable[[Tensor], tuple[Tensor, ...]]

every_differentiable = pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)


def of_input(call: Callable[[Tensors], tuple[Tensor, ...]], t: Tensors, name: str) -> Function:
    return lambda x: tuple(call({**t, name: x}))


def tangent(x: Tensor) -> Tensor:
    return torch.arange(x.numel()).to(x).sin().reshape(x.shape)


def squared(f: Function) -> Callable[[Tensor], Tensor]:
    return lambda x: sum((y.to(accumulated(y.dtype)).square().sum() for y in f(x)), start=torch.zeros(()))


def jvp(f: Function, x: Tensor) -> tuple[Tensor, ...]:
    tangents: tuple[Tensor, ...] = torch.func.jvp(f, (x,), (tangent(x),))[1]
    return tangents


def dual_numbers(f: Function, x: Tensor) -> tuple[Tensor | None, ...]:
    with forward_ad.dual_level():
        return tuple(forward_ad.unpack_dual(y).tangent for y in f(forward_ad.make_dual(x, tangent(x))))


def vjp(f: Function, x: Tensor) -> Any:
    values, pull = torch.func.vjp(f, x)
    return pull(tuple(noise(tuple(y.shape), 8 + i).to(y) for i, y in enumerate(values)))


def grad(f: Function, x: Tensor) -> Tensor:
    return torch.func.grad(squared(f))(x)


def jacfwd(f: Function, x: Tensor) -> Any:
    return torch.func.jacfwd(f)(x)


def jacrev(f: Function, x: Tensor) -> Any:
    return torch.func.jacrev(f)(x)


def forward_over_reverse(f: Function, x: Tensor) -> tuple[Tensor, ...]:
    return jvp(lambda x: (grad(f, x),), x)


def reverse_over_forward(f: Function, x: Tensor) -> Tensor:
    return grad(lambda x: jvp(f, x), x)


TRANSFORMS = (jvp, dual_numbers, vjp, grad, jacfwd, jacrev, forward_over_reverse, reverse_over_forward)


def assert_close(got: Any, exact: Any, rtol: float = 1e-11) -> None:
    got, exact = pytree.tree_leaves(got), pytree.tree_leaves(exact)
    assert len(got) == len(exact) > 0
    for y, z in zip(got, exact, strict=True):
        if isinstance(z, Tensor):
            scale = float(z.abs().max()) if z.numel() else 0.0
            torch.testing.assert_close(y.double(), z, rtol=0, atol=rtol * max(scale, 1e-3))


@every_differentiable
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda f: f.__name__)
def test_every_transform_equals_that_of_the_definition(case: Case, transform: Callable[..., Any]) -> None:
    t = case.tensors(SHAPE)
    for name in (*case.differentiable, *(["weight"] if "weight" in t else [])):
        got = transform(of_input(case.call, t, name), t[name])
        assert_close(got, transform(of_input(case.exact, t, name), t[name]))


@every_differentiable
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tangent_has_the_dtype_of_the_value(case: Case, dtype: torch.dtype) -> None:
    t = case.tensors(SHAPE, dtype)
    tangents = jvp(of_input(case.call, t, "x"), t["x"])
    exact = jvp(of_input(case.exact, doubles(t), "x"), t["x"].double())
    for y, z, value in zip(tangents, exact, case.call(t), strict=True):
        assert y.dtype == value.dtype
        assert_close(y, z, 8 * torch.finfo(dtype).eps)


@every_differentiable
@pytest.mark.parametrize("transform", [grad, jvp], ids=lambda f: f.__name__)
def test_vmap_of_a_derivative_equals_a_loop(case: Case, transform: Callable[..., Any]) -> None:
    t = case.tensors(SHAPE)
    many = torch.stack([t["x"], noise(SHAPE, 11), noise(SHAPE, 12)])
    got = torch.func.vmap(lambda x: transform(of_input(case.call, t, "x"), x))(many)
    loop = [transform(of_input(case.exact, t, "x"), x) for x in many]
    assert_close(got, pytree.tree_map(lambda *each: torch.stack(each), *loop))


@every_differentiable
def test_a_derivative_of_vmap_equals_a_loop(case: Case) -> None:
    t = case.tensors(SHAPE)
    many = torch.stack([t["x"], noise(SHAPE, 11)])
    got = grad(lambda many: torch.func.vmap(of_input(case.call, t, "x"))(many), many)
    assert_close(got, torch.stack([grad(of_input(case.exact, t, "x"), x) for x in many]))


@pytest.mark.parametrize("name", [*NAMES, "conv3x3", "conv3x3_backward"])
def test_every_registered_op_passes_gradcheck_in_both_modes(name: str) -> None:
    """Against finite differences; batched gradients and second derivatives too."""
    x = (noise((1, 2, 4, 6)) + 3 * noise((1, 2, 4, 6), 2)).requires_grad_()
    every = arguments(x, True)
    kernel = noise((3, 2, 3, 3), 3)
    every["conv3x3"] = (x, kernel, noise((3,), 4), True, "replicate")
    every["conv3x3_backward"] = (noise((1, 3, 4, 6), 5).requires_grad_(), kernel, None, None, 4, 6, False)
    given = every[name]
    argmax = [i for i, value in enumerate(given) if isinstance(value, Tensor) and value.requires_grad]

    def call(*leaves: Tensor) -> Any:
        full = list(given)
        for place, leaf in zip(argmax, leaves, strict=True):
            full[place] = leaf
        return [y for y in pytree.tree_leaves(getattr(torch.ops.fastnst, name)(*full)) if y.is_floating_point()]

    leaves = [given[i] for i in argmax]
    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True, fast_mode=True, **batched)
    assert torch.autograd.gradgradcheck(call, leaves, check_fwd_over_rev=True, check_batched_grad=True, fast_mode=True)


def test_the_position_weight_has_a_derivative_in_forward_mode() -> None:
    x, weight = noise(SHAPE), noise((2, 6, 5), 2).abs()
    with forward_ad.dual_level():
        y = ops.gram(x, forward_ad.make_dual(weight, torch.ones_like(weight)))
        found = forward_ad.unpack_dual(y).tangent
    assert_close(found, torch.einsum("bihw,bjhw->bij", x, x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 6, 5), (6, 5), (2, 1, 5), (1,)], ids=str)
def test_the_derivative_of_a_position_weight_is_a_quadratic_form_of_its_features(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """``dG_ij / dw_n = s F_in F_jn``; a weight that broadcasts gets the sum."""
    x, weight, d = noise(SHAPE).to(dtype), noise(shape, 2).to(accumulated(dtype)).requires_grad_(), noise((2, 3, 3), 3)
    exact = 0.3 * torch.einsum("bij,bihw,bjhw->bhw", d, x.double(), x.double())
    (found,) = torch.autograd.grad(ops.gram(x, weight, 0.3), weight, d.to(weight))
    assert_close(found, exact.sum_to_size(shape), 1e-11 if dtype == torch.float64 else 1e-5)
    loss, residual = ops.style_loss_and_residual(x, torch.eye(3), weight, 0.3)
    exact = 0.6 * torch.einsum("bij,bihw,bjhw->bhw", residual.detach().double(), x.double(), x.double())
    (found,) = torch.autograd.grad(loss, weight)
    assert_close(found, exact.sum_to_size(shape), 1e-11 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("transform", ["hessian", "reverse over reverse", "reverse over forward"])
@every_differentiable
def test_the_hessian_of_a_small_problem_is_that_of_the_definition(case: Case, transform: str) -> None:
    t = case.tensors((1, 2, 4, 3))

    def hessian(call: Callable[[Tensors], tuple[Tensor, ...]], name: str) -> Any:
        f = squared(of_input(call, t, name))
        if transform == "hessian":
            return torch.func.hessian(f)(t[name])
        if transform == "reverse over reverse":
            return torch.func.jacrev(torch.func.jacrev(f))(t[name])
        return torch.func.jacrev(torch.func.jacfwd(f))(t[name])

    for name in (*case.differentiable, *(["weight"] if "weight" in t else [])):
        assert_close(hessian(case.call, name), hessian(case.exact, name))


@every_differentiable
def test_batched_gradients_equal_a_loop(case: Case) -> None:
    t = case.tensors(SHAPE)
    names = (*case.differentiable, *(["weight"] if "weight" in t else []))

    def pulled(call: Callable[[Tensors], tuple[Tensor, ...]], batched: bool) -> tuple[Tensor, ...]:
        leaves = {name: value.detach().requires_grad_(name in names) for name, value in t.items()}
        outputs, wanted = call(leaves), [leaves[name] for name in names]
        many = [noise((3, *y.shape), 20 + i) for i, y in enumerate(outputs)]
        if batched:
            return torch.autograd.grad(outputs, wanted, many, is_grads_batched=True)
        each = [torch.autograd.grad(outputs, wanted, [g[k] for g in many], retain_graph=True) for k in range(3)]
        return tuple(map(torch.stack, zip(*each, strict=True)))

    assert_close(pulled(case.call, True), pulled(case.exact, False))


@pytest.mark.parametrize("case", [case for case in CASES if not case.differentiable], ids=str)
@pytest.mark.parametrize("transform", [jvp, dual_numbers, grad, jacfwd, jacrev], ids=lambda f: f.__name__)
def test_differentiating_an_op_without_a_derivative_is_an_error(case: Case, transform: Callable[..., Any]) -> None:
    t = case.tensors(SHAPE)
    for name in t:
        before = {key: value.clone() for key, value in t.items()}
        with pytest.raises((RuntimeError, ValueError), match="has no derivative"):
            transform(of_input(case.call, t, name), t[name])
        assert all(torch.equal(t[key], before[key]) for key in t)


@pytest.mark.parametrize("name", ["conv3x3_out", "conv3x3_backward_out"])
def test_differentiating_a_convolution_with_an_output_argument_is_an_error(name: str) -> None:
    x, kernel, out = noise((1, 2, 4, 4)), noise((2, 2, 3, 3), 2), torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    options = (None, False, "zeros", 0) if name == "conv3x3_out" else (None, None, 4, 4, False, 0)
    op = getattr(torch.ops.fastnst, name)
    with pytest.raises(RuntimeError, match=f"{name}: has no derivative"):
        op(x.clone().requires_grad_(), kernel, *options, out)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=f"{name}: has no derivative"):
        op(forward_ad.make_dual(x, x), kernel, *options, out)
    assert not out.any()


@every_differentiable
def test_outside_of_transforms_the_kernels_make_the_gradient(case: Case) -> None:
    t = case.tensors(SHAPE, torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        gradients(case.call, t, case.differentiable)
    names = {event.name for event in profile.events() or ()}
    assert any(name.startswith("fastnst::") and name.endswith("_backward") for name in names)
    assert not names & {"aten::bmm", "aten::matmul", "aten::max_pool2d", "aten::avg_pool2d"}


def test_a_compiled_transform_equals_the_plain_one() -> None:
    x = noise(SHAPE)

    def slope(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: ops.gram(x).square().sum())(x)

    compiled = torch.compile(slope, backend="aot_eager")
    torch.testing.assert_close(compiled(x), slope(x))
