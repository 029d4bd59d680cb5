"""``torch.vmap`` of every op equals a loop, and runs the kernel once where the mapped axis can be part of the batch."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from op_cases import CASES, DIFFERENTIABLE, DTYPES, Case, Tensors, channels_last, features, noise
from test_ops_registered import NAMES, arguments
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fastnst import ops

SHAPE = (2, 3, 6, 5)
COUNT = 3
# Each of their slices has a scalar of its own, which a larger batch would add up.
SCALARS = ("content_loss", "total_variation")
IN_PLACE = ("layer_backward_", "bias_relu_")


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often each op runs below vmap and autograd."""
    found: Counter[str] = Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found[func._schema.name] += 1
            return func(*args, **(kwargs or {}))

    with Counting():
        yield found


def many(case: Case, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64) -> list[Tensors]:
    """Inputs of the case for several slices, all different."""
    first = case.tensors(shape, dtype)

    def other(name: str, value: Tensor, k: int) -> Tensor:
        return (k + 1) * (value if name in ("residual", "target") else value.roll(k, -1))  # residuals are symmetric

    return [{name: other(name, value, k) for name, value in first.items()} for k in range(COUNT)]


def stacked(slices: list[Tensors], axis: int) -> Tensors:
    return {name: torch.stack([each[name] for each in slices], axis) for name in slices[0]}


def assert_close(got: Any, wanted: Any, rtol: float = 1e-11) -> None:
    got, wanted = pytree.tree_leaves(got), pytree.tree_leaves(wanted)
    assert len(got) == len(wanted) > 0
    for y, z in zip(got, wanted, strict=True):
        scale = float(z.abs().max()) if z.numel() else 0.0
        torch.testing.assert_close(y.to(z.dtype), z, rtol=0, atol=rtol * max(scale, 1e-3))


def loop(call: Callable[[Tensors], Any], slices: list[Tensors]) -> Any:
    return pytree.tree_map(lambda *each: torch.stack(each), *[call(t) for t in slices])


def op_of(case: Case) -> str:
    return case.name.split()[0]


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vmap_equals_a_loop_over_the_definition(case: Case, axis: int) -> None:
    slices = many(case)
    t = stacked(slices, axis)
    if op_of(case) == "layer_backward_" and axis:
        with pytest.raises(ValueError, match=r"layer_backward_: expected x contiguous or channels_last, got strides"):
            torch.vmap(case.call, in_dims=axis)(t)
    else:
        assert_close(torch.vmap(case.call, in_dims=axis)(t), loop(case.exact, slices))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vmap_runs_the_op_once(case: Case) -> None:
    t = stacked(many(case), 0)
    dims: dict[str, int | None] = dict.fromkeys(t, 0)
    if "bias" in t:  # a parameter, which a batch shares
        t["bias"], dims["bias"] = t["bias"][0], None
    with counted() as found:
        torch.vmap(case.call, in_dims=(dims,))(t)
    ours = {name: count for name, count in found.items() if name.startswith("fastnst::")}
    assert ours[f"fastnst::{op_of(case)}"] == (COUNT if op_of(case) in SCALARS else 1)
    assert not {"aten::bmm", "aten::max_pool2d_with_indices", "aten::avg_pool2d"} & set(found)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradients_per_sample_equal_a_loop_and_run_the_backward_once(case: Case) -> None:
    slices = many(case)

    def grads(call: Callable[[Tensors], tuple[Tensor, ...]]) -> Callable[[Tensors], Any]:
        return torch.func.grad(lambda t: torch.stack([y.square().sum() for y in call(t)]).sum())

    with counted() as found:
        got = torch.vmap(grads(case.call))(stacked(slices, 0))
    wanted = loop(grads(case.exact), slices)
    assert_close(got, wanted)
    assert set(got) >= set(case.differentiable)
    backward = {name: count for name, count in found.items() if name.endswith("_backward")}
    # With a weight, gram_backward runs a second time: for the weight.
    assert backward
    assert set(backward.values()) <= {2 if "weight" in slices[0] else 1}


@pytest.mark.parametrize("case", [case for case in CASES if op_of(case) not in IN_PLACE], ids=str)
def test_nested_vmap_equals_two_loops(case: Case) -> None:
    slices = many(case)
    every = [{name: value + k * value.flip(-1) for name, value in each.items()} for each in slices for k in range(2)]
    # Two mapped axes at the end: the outer one is the last, the inner one the last of what the outer vmap leaves.
    t = {name: torch.stack([each[name] for each in every], -1).unflatten(-1, (COUNT, 2)).mT for name in every[0]}
    got = torch.vmap(torch.vmap(case.call, in_dims=-1), in_dims=-1)(t)
    assert_close(pytree.tree_map(lambda y: y.flatten(0, 1), got), loop(case.exact, every))


def tensor_places(given: tuple[Any, ...]) -> list[int]:
    return [i for i, value in enumerate(given) if isinstance(value, Tensor)]


def raw(x: Tensor) -> dict[str, tuple[Any, ...]]:
    """Arguments of the ops that return tensors, backward ops among them."""
    kernel, bias = noise((3, 3, 3, 3), 7).to(x.dtype), noise((3,), 8).to(x.dtype)
    mask, (y, argmax) = noise(tuple(x.shape), 9).to(x.dtype), ops.pool_with_argmax(x)
    found = arguments(x, False)
    found["pool max"] = (x, "max")
    found["pool_backward max"] = (noise(tuple(y.shape)).to(x.dtype), None, None, argmax, "max", *x.shape[2:], True)
    found["conv3x3"] = (x, kernel, bias, True, "replicate")
    found["conv3x3_backward"] = (x, kernel, mask, None, *x.shape[2:], False)
    found["bias_relu_style_loss"] = (x, bias, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), 0.3)
    return found


RAW = (*NAMES, "pool max", "pool_backward max", "conv3x3", "conv3x3_backward", "bias_relu_style_loss")


@pytest.mark.parametrize("name", RAW)
def test_vmap_over_any_of_the_arguments_equals_a_loop(name: str) -> None:
    given = raw(features(SHAPE))[name]
    op = getattr(torch.ops.fastnst, name.split()[0])
    places = tensor_places(given)
    subsets = itertools.chain(*(itertools.combinations(places, n) for n in range(1, len(places) + 1)))
    for mapped in subsets:
        dims = [i % (given[i].dim() + 1) if i in mapped else None for i in range(len(given))]
        slices = [
            [value.roll(k, -1) if i in mapped and value.dim() else value for i, value in enumerate(given)]
            for k in range(COUNT)
        ]
        full = [
            torch.stack([each[i] for each in slices], dims[i]) if dims[i] is not None else value
            for i, value in enumerate(given)
        ]
        wanted = pytree.tree_map(lambda *each: torch.stack(each), *[op(*each) for each in slices])
        got = torch.vmap(lambda *args: pytree.tree_map(torch.clone, op(*args)), in_dims=tuple(dims))(*full)
        assert_close(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_vmap_in_every_dtype_and_layout_equals_a_loop_of_the_op(case: Case, dtype: torch.dtype) -> None:
    slices = [{**t, "x": channels_last(t["x"])} for t in many(case, dtype=dtype)]
    t = stacked(slices, 0)
    t["x"] = t["x"].movedim(2, -1).contiguous().movedim(-1, 2)
    rtol = 1e-12 if dtype == torch.float64 else 1e-6

    def slope(t: Tensors) -> Tensor:
        def total(x: Tensor) -> Tensor:
            return torch.stack([y.double().square().sum() for y in case.call({**t, "x": x})]).sum()

        found: Tensor = torch.func.grad(total)(t["x"])
        return found

    assert_close(torch.vmap(case.call)(t), loop(case.call, slices), max(rtol, torch.finfo(dtype).eps))
    assert_close(torch.vmap(slope)(t), loop(slope, slices), max(rtol, 2 * torch.finfo(dtype).eps))


def test_masks_of_one_feature_map_do_not_copy_it() -> None:
    """Regions of one picture: the features are not mapped over, so the op runs for each mask."""
    x, masks = features((1, 3, 6, 5)), noise((4, 6, 5)).abs()
    with counted() as found:
        got = torch.vmap(lambda mask: ops.gram(x, mask))(masks)
    assert_close(got, torch.einsum("kp,bip,bjp->kbij", masks.flatten(1), x.flatten(2), x.flatten(2)))
    assert found["fastnst::gram"] == 4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_ops_in_place_write_the_tensor_that_vmap_maps_over(layout: torch.memory_format) -> None:
    x = noise((COUNT * 2, 3, 6, 5)).contiguous(memory_format=layout)
    grad, bias = torch.empty_like(x).copy_(noise(tuple(x.shape), 2)), noise((3,), 3)
    wanted = grad.where(x > 0, 0), (x + bias[:, None, None]).clamp(min=0)
    with counted() as found:
        torch.vmap(ops.layer_backward_)(grad.unflatten(0, (COUNT, 2)), x.unflatten(0, (COUNT, 2)))
        torch.vmap(ops.bias_relu_, in_dims=(0, None))(x.unflatten(0, (COUNT, 2)), bias)
    assert torch.equal(grad, wanted[0])
    assert torch.equal(x, wanted[1])
    assert found["fastnst::layer_backward_"] == found["fastnst::bias_relu_"] == 1


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_an_op_in_place_writes_slices_that_are_no_batch(axis: int) -> None:
    x = noise((2, 3, 4, 5))
    slices = x.unbind(axis)
    bias = noise((slices[0].shape[1],), 3)
    wanted = torch.stack([(each + bias[:, None]).clamp(min=0) for each in slices], axis)
    torch.vmap(ops.bias_relu_, in_dims=(axis, None))(x, bias)
    assert torch.equal(x, wanted)


def test_what_vmap_cannot_do_is_an_error() -> None:
    x, biases = noise((2, 3, 4)), noise((5, 3))
    with pytest.raises(RuntimeError, match="bias_relu_: expected vmap to map over x, which is written in place"):
        torch.vmap(ops.bias_relu_, in_dims=(None, 0))(x, biases)
    with pytest.raises(RuntimeError, match=r"bias_relu_: expected vmap to map over x, .* with memory for each slice"):
        torch.vmap(ops.bias_relu_, in_dims=(0, None))(x.expand(5, 2, 3, 4), biases[0])
    with pytest.raises(RuntimeError, match="content_loss: expected vmap to map over at least one slice, got 0"):
        torch.vmap(ops.content_loss)(x[:0], x[:0])
    assert torch.vmap(ops.gram)(noise((0, 2, 3, 4))).shape == (0, 2, 3, 3)


def test_a_compiled_vmap_runs_the_op_once() -> None:
    many, target = noise((COUNT, *SHAPE)), torch.eye(3, dtype=torch.float64)
    names: Counter[str] = Counter()

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        names.update(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    def per_sample(many: Tensor) -> Tensor:
        slopes: Tensor = torch.vmap(torch.func.grad(lambda x: ops.style_loss(x, target)))(many)
        return slopes

    torch.compiler.reset()
    compiled = torch.compile(per_sample, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
    assert_close(compiled(many), per_sample(many))
    assert names["fastnst.style_loss.default"] == names["fastnst.gram_backward.default"] == 1
