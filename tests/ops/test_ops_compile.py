"""torch.compile without a graph break, forward and backward, equal to eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from op_cases import CASES, DIFFERENTIABLE, Case, channels_last, contiguous, features, gradients, noise
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fastnst import ops


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
@pytest.mark.sweep(5)
def test_compiled_equals_eager_with_gradients(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    t = case.tensors((2, 5, 6, 7), torch.float32)
    t["x"] = layout(t["x"])
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    expected = gradients(case.call, t, case.differentiable)
    for got, wanted in zip(gradients(compiled, t, case.differentiable), expected, strict=True):
        assert torch.equal(got, wanted)
        assert got.stride() == wanted.stride()


@pytest.mark.parametrize("case", [case for case in CASES if not case.differentiable], ids=str)
def test_compiled_equals_eager_in_place(case: Case) -> None:
    t = case.tensors((2, 5, 6, 7), torch.float32)
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(t)[0], case.call(t)[0])


def test_compiled_writes_the_gradient_it_was_given() -> None:
    x, grad, expected = features((1, 3, 4, 5)), noise((1, 3, 4, 5)), noise((1, 3, 4, 5))
    ops.layer_backward_(expected, x)
    compiled = torch.compile(lambda grad, x: ops.layer_backward_(grad, x), fullgraph=True, backend="aot_eager")
    assert compiled(grad, x) is grad
    assert torch.equal(grad, expected)


def _all_ops(x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    values = (ops.gram(x, scale=0.1), *ops.moments(x), ops.style_loss(x, target), ops.content_loss(x, 2 * x))
    values += (ops.pool(x), ops.pool(x, "l2"), ops.bias_relu_(x.clone(), target[0]))
    return (*values, ops.total_variation(x), ops.layer_backward_(x.clone(), x, residual=target, style=0.5))


def test_one_compilation_works_for_every_size() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(_all_ops, fullgraph=True, backend=backend, dynamic=True)
    for shape in ((2, 5, 6, 7), (3, 4, 9, 8), (2, 7, 5, 11)):
        x, target = features(shape).float(), torch.eye(shape[1])
        assert all(torch.equal(a, b) for a, b in zip(compiled(x, target), _all_ops(x, target), strict=True))
    assert len(graphs) == 1


def test_gradients_of_dynamic_shapes() -> None:
    """With a scale computed from the shape, which torch.compile specializes: one compilation per size."""

    def loss(x: Tensor, target: Tensor) -> Tensor:
        return ops.style_loss(x, target, scale=1 / x[0].numel()) + ops.content_loss(x, x.detach() * 0.5)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in (5, 6, 9):
        x, target = features((1, 4, size, 7)).requires_grad_(), noise((4, 4))
        (expected,) = torch.autograd.grad(loss(x, target), x)
        (got,) = torch.autograd.grad(compiled(x, target), x)
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_constants_of_a_fixed_size_work_with_a_map_of_dynamic_size(case: Case) -> None:
    """Tensors that compiled code captures have constant sizes, while those of the map are symbolic."""
    t = case.tensors((2, 5, 6, 7), torch.float32)
    held = {name: value for name, value in t.items() if value.dim() < 4}

    def call(free: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return case.call({**free, **held})

    free = {name: value for name, value in t.items() if name not in held}
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=True)
    assert all(torch.equal(a, b) for a, b in zip(compiled(free), case.call(t), strict=True))


@pytest.mark.parametrize("scale", [lambda x: 1 / x[0].numel(), lambda x: x.shape[1]], ids=["float", "int"])
def test_a_symbolic_scale_is_a_number(scale: Callable[[Tensor], float]) -> None:
    """PyTorch converts it if an op's schema declares a float."""

    def every(x: Tensor) -> tuple[Tensor, ...]:
        s, target = scale(x), x.new_ones((x.shape[1], x.shape[1]))
        values = (ops.gram(x, scale=s), *ops.moments(x, s), ops.style_loss(x, target, scale=s))
        grad = ops.layer_backward_(x.clone(), x, residual=target, style=s, target=2 * x, content=s)
        return (*values, *ops.bias_relu_style_loss(x, target[0], target, s), grad)

    x = features((2, 5, 6, 7))
    graph = make_fx(every, tracing_mode="symbolic")(x)
    assert all(torch.equal(a, b) for a, b in zip(graph(x), every(x), strict=True))


@pytest.mark.slow
def test_inductor_fuses_around_the_ops() -> None:
    def loss(x: Tensor, target: Tensor) -> Tensor:
        return ops.style_loss((2 * x - 0.3).relu(), target, scale=0.1)

    x, target = noise((1, 4, 5, 7)).float().requires_grad_(), noise((4, 4)).float()
    value = torch.compile(loss, fullgraph=True)(x, target)
    (got,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(value, loss(x, target))
    torch.testing.assert_close(got, torch.autograd.grad(loss(x, target), x)[0])
