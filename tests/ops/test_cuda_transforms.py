"""The transforms of torch.func, vmap, export and checkpointing on a CUDA device, as on the CPU."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cuda_device import NEEDS_CUDA
from op_cases import CASES, DIFFERENTIABLE, Case, Tensors, accumulated, doubles, noise
from test_ops_in_programs import Calls
from test_ops_layouts import ORDERS, calls, every_view, laid_out
from test_ops_transforms import TRANSFORMS, assert_close, of_input, squared
from test_ops_vmap import SCALARS, SHAPE, counted, loop, many, op_of, stacked
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from fastnst import ops

pytestmark = NEEDS_CUDA
every_differentiable = pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)


def on_cuda(given: Any) -> Any:
    return pytree.tree_map_only(Tensor, Tensor.cuda, given)


def on_cpu(given: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda x: x.detach().cpu(), given)


@every_differentiable
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda f: f.__name__)
def test_every_transform_equals_that_of_the_definition(case: Case, transform: Callable[..., Any]) -> None:
    t = case.tensors(SHAPE)
    for name in (*case.differentiable, *(["weight"] if "weight" in t else [])):
        got = transform(of_input(case.call, on_cuda(t), name), t[name].cuda())
        assert_close(on_cpu(got), transform(of_input(case.exact, t, name), t[name]))


@every_differentiable
def test_hessians_equal_those_of_the_definition(case: Case) -> None:
    t = case.tensors((1, 2, 4, 3))
    got = torch.func.hessian(squared(of_input(case.call, on_cuda(t), "x")))(t["x"].cuda())
    assert_close(on_cpu(got), torch.func.hessian(squared(of_input(case.exact, t, "x")))(t["x"]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vmap_equals_a_loop_and_runs_the_op_once(case: Case, dtype: torch.dtype) -> None:
    slices = many(case, dtype=dtype)
    t, dims = on_cuda(stacked(slices, 0)), dict.fromkeys(slices[0], 0)
    if "bias" in t:
        t["bias"], dims["bias"] = t["bias"][0], None  # type: ignore[assignment]
        slices = [{**each, "bias": slices[0]["bias"]} for each in slices]
    with counted() as found:
        got = torch.vmap(case.call, in_dims=(dims,))(t)
    wanted = loop(case.exact, [doubles(each) for each in slices])
    rtol = {torch.float64: 1e-11, torch.float32: 1e-5}.get(dtype, 8e-3)
    assert_close(on_cpu(got), pytree.tree_map(lambda y: y, wanted), rtol)
    assert found[f"fastnst::{op_of(case)}"] == (len(slices) if op_of(case) in SCALARS else 1)


@every_differentiable
def test_gradients_per_sample_equal_a_loop(case: Case) -> None:
    slices = many(case)

    def grads(call: Callable[[Tensors], tuple[Tensor, ...]]) -> Callable[[Tensors], Any]:
        return torch.func.grad(lambda t: torch.stack([y.square().sum() for y in call(t)]).sum())

    got = torch.vmap(grads(case.call))(on_cuda(stacked(slices, 0)))
    assert_close(on_cpu(got), loop(grads(case.exact), slices))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_derivative_of_a_position_weight_is_a_quadratic_form_of_its_features(dtype: torch.dtype) -> None:
    x = noise((2, 64, 17, 19)).to("cuda", dtype)
    weight = noise((17, 19), 2).to("cuda", accumulated(dtype)).requires_grad_()
    d = noise((2, 64, 64), 3).to("cuda")
    (found,) = torch.autograd.grad(ops.gram(x, weight, 0.3), weight, d.to(weight))
    exact = 0.3 * torch.einsum("bij,bihw,bjhw->hw", d, x.double(), x.double())
    assert_close(on_cpu(found), on_cpu(exact), 1e-11 if dtype == torch.float64 else 1e-5)


@every_differentiable
@pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])
def test_a_checkpoint_gives_the_gradient_of_the_definition(case: Case, reentrant: bool) -> None:
    t = on_cuda(case.tensors(SHAPE))
    x = t["x"].clone().requires_grad_()
    outputs = checkpoint(lambda x: case.call({**t, "x": x}), x, use_reentrant=reentrant)
    torch.stack([y.square().sum() for y in outputs]).sum().backward()
    exact = torch.func.grad(squared(of_input(case.exact, on_cpu(t), "x")))(on_cpu(t["x"]))
    assert_close(on_cpu(x.grad), exact)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_exported_program_is_saved_and_loaded(case: Case) -> None:
    t = case.tensors(SHAPE, torch.float32, "cuda")
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Calls(case.call), (t,)), buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    assert all(torch.equal(y, z) for y, z in zip(loaded(t), case.call(t), strict=True))


@every_view
@pytest.mark.parametrize(("shape", "order"), ORDERS, ids=str)
def test_the_fake_kernels_have_the_strides_of_the_kernels(
    shape: tuple[int, ...], order: tuple[int, ...], view: Callable[[Tensor], Tensor]
) -> None:
    x = view(on_cuda(laid_out(shape, order, lambda x: x)))
    for name, given in calls(x).items():
        op = getattr(torch.ops.fastnst, name.split()[0])
        torch.library.opcheck(op, on_cuda(given), test_utils=("test_schema", "test_faketensor"))
