"""Properties of results on a CUDA device other than accuracy: bits, streams, devices, sizes, graphs, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from cuda_device import NEEDS_CUDA, assert_right
from op_cases import CASES, DIFFERENTIABLE, DTYPES, Case, Tensors, channels_last, contiguous, gradients, noise
from test_ops_registered import every_op, on_meta, permutations, strides_taken
from torch import Tensor
from torch.utils import _pytree as pytree

from fastnst import ops

pytestmark = NEEDS_CUDA

every_case = pytest.mark.parametrize("case", CASES, ids=str)
both_layouts = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
SHAPE = (2, 64, 65, 66)


def bits(x: Tensor) -> Tensor:
    return x.contiguous().reshape(-1).view(torch.uint8)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@both_layouts
@every_case
def test_repeats_have_the_same_bits(case: Case, layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    t = case.tensors((1, 64, 256, 257), dtype, "cuda")
    t["x"] = layout(t["x"])
    first = case.call(t)
    for _ in range(5):
        assert all(torch.equal(bits(y), bits(z)) for y, z in zip(case.call(t), first, strict=True))
    if case.differentiable:
        slopes = gradients(case.call, t, case.differentiable)
        again = gradients(case.call, t, case.differentiable)
        assert all(torch.equal(bits(y), bits(z)) for y, z in zip(again, slopes, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@both_layouts
@pytest.mark.parametrize("channels", [3, 64, 128, 130, 256, 512])
def test_gram_matrices_are_exactly_symmetric(
    channels: int, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    x = layout(noise((2, channels, 45, 47)).to("cuda", dtype))
    weight = noise((2, 45, 47), 3).abs().cuda()
    target = torch.eye(channels, device="cuda")
    _, residual = ops.style_loss_and_residual(x, target)
    for g in (ops.gram(x), ops.gram(x, weight), ops.moments(x)[1], residual):
        assert torch.equal(g, g.mT)


@pytest.mark.parametrize(("shape", "order"), permutations(), ids=str)
def test_strides_are_those_of_the_fake_kernels_for_any_order_of_axes(
    shape: tuple[int, ...], order: tuple[int, ...]
) -> None:
    x = noise(tuple(shape[axis] for axis in order)).float().cuda()
    x = x.permute([order.index(axis) for axis in range(len(shape))])
    for name, given in every_op(x).items():
        given = pytree.tree_map_only(Tensor, Tensor.cuda, given)
        op = getattr(torch.ops.fastnst, name.split()[0])
        predicted = pytree.tree_leaves(op(*pytree.tree_map_only(Tensor, on_meta, given)))
        for y, z in zip(pytree.tree_leaves(op(*given)), predicted, strict=True):
            assert (y.shape, y.dtype, strides_taken(y)) == (z.shape, z.dtype, strides_taken(z)), name


@every_case
def test_ops_run_on_the_current_stream(case: Case) -> None:
    t = case.tensors((1, 64, 65, 66), torch.float32, "cuda")
    expected = case.call(t)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        late = {name: value * 1 for name, value in t.items()}  # not computed before the sleep ends
        got = case.call(late)
    stream.synchronize()
    assert all(torch.equal(y, z) for y, z in zip(got, expected, strict=True))


@every_case
def test_ops_run_on_the_device_of_their_inputs(case: Case) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    t = case.tensors(SHAPE, torch.float32, "cuda:1")
    with torch.cuda.device(0):
        got = case.call(t)
        assert torch.cuda.current_device() == 0
    assert all(y.device == torch.device("cuda:1") for y in got)
    assert_right(case, t, got)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@both_layouts
@every_case
def test_an_op_in_a_cuda_graph_follows_its_inputs(
    case: Case, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    def run(t: Tensors) -> tuple[Tensor, ...]:
        return (*case.call(t), *(gradients_of(case, t)))

    t = case.tensors(SHAPE, dtype, "cuda")
    t["x"] = layout(t["x"])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(t)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = run(t)
    for factor in (0.5, 2.0):  # powers of two: exact in every dtype
        t["x"].mul_(factor)
        graph.replay()
        replayed = [y.clone() for y in held]
        assert all(torch.equal(bits(y), bits(z)) for y, z in zip(replayed, run(t), strict=True))


def gradients_of(case: Case, t: Tensors) -> tuple[Tensor, ...]:
    """The derivative with respect to x of the sum of all results, computed on the device only."""
    if not case.differentiable:
        return ()
    x = t["x"].detach().requires_grad_(True)
    outputs = case.call({**t, "x": x})
    return torch.autograd.grad(outputs, x, [torch.ones_like(y) for y in outputs])


@pytest.mark.usefixtures("_fresh_compiler")
@both_layouts
@every_case
def test_compiled_without_a_break_equals_eager(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    t = case.tensors(SHAPE, torch.float32, "cuda")
    t["x"] = layout(t["x"])
    compiled = torch.compile(case.call, fullgraph=True)
    for y, z in zip(compiled(t), case.call(t), strict=True):
        torch.testing.assert_close(y, z)


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_compiled_gradients_equal_eager(case: Case) -> None:
    t = case.tensors(SHAPE, torch.float32, "cuda")
    compiled = torch.compile(case.call, fullgraph=True)
    expected = gradients(case.call, t, case.differentiable)
    for y, z in zip(gradients(compiled, t, case.differentiable), expected, strict=True):
        torch.testing.assert_close(y, z)


BEYOND = 2**31 + 6


def need(gibibytes: float) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < gibibytes * 2**30:
        pytest.skip(f"needs {gibibytes} GiB of free memory on the device")


@pytest.fixture
def _memory_returned() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("_memory_returned")
@both_layouts
def test_features_of_more_than_2_31_elements(layout: Callable[[Tensor], Tensor]) -> None:
    need(26)
    count = 2**15 + 1
    x = layout(torch.zeros(1, 2, count, 2**15, dtype=torch.float16, device="cuda"))
    assert x.numel() > 2**31
    x[0, :, -1, -1] = torch.tensor([1.0, 2.0])  # the far end of every plane
    x[0, 0, 0, 0] = 3
    g = torch.tensor([[[10.0, 2.0], [2.0, 4.0]]])
    assert torch.equal(ops.gram(x).cpu(), g)
    loss, residual = ops.style_loss_and_residual(x, torch.zeros(2, 2, device="cuda"))
    assert torch.equal(residual.cpu(), g)
    assert loss == g.square().sum()
    grad = torch.zeros_like(x)
    assert ops.content_loss(x, grad) == 14
    ops.layer_backward_(grad, x, residual=residual, style=1.0)
    assert grad[0, :, -1, -1].tolist() == [14, 10]
    assert grad[0, :, 0, 0].tolist() == [30, 0]
    assert grad.count_nonzero() == 3
    ops.bias_relu_(grad, torch.tensor([1.0, -1.0], dtype=torch.float16, device="cuda"))
    assert grad[0, :, -1, -1].tolist() == [15, 9]
    assert grad[0, :, -2, -2].tolist() == [1, 0]


@pytest.mark.usefixtures("_memory_returned")
@pytest.mark.parametrize("kind", ["max", "average", "l2"])
def test_pictures_of_more_than_2_31_elements(kind: str) -> None:
    need(22)
    x = torch.zeros(1, 2, 2**15, 2**15 + 2, dtype=torch.float16, device="cuda", requires_grad=True)
    assert x.numel() > 2**31
    with torch.no_grad():
        x[0, -1, -1, -1] = 4
    y = ops.pool(x, kind)
    assert y[0, -1, -1, -1] == {"max": 4, "average": 1, "l2": 2}[kind]
    (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert slope[0, -1, -1, -1] == {"max": 1, "average": 0.25, "l2": 0.5}[kind]
    del y, slope
    assert ops.total_variation(x.detach(), "squared") == 32


def test_one_map_of_more_than_2_31_pixels_is_pooled_or_refused() -> None:
    need(8)
    side = 46342  # even, and its square is beyond 2^31
    x = torch.zeros(1, 1, side, side, dtype=torch.float16, device="cuda")
    x[0, 0, -1, -1] = 4
    if ops.kernels("cuda")["pool"] == "cuda":
        with pytest.raises(RuntimeError, match=r"pool: expected maps of fewer than 2\^31 pixels"):
            ops.pool(x)
    else:
        assert ops.pool(x)[0, 0, -1, -1] == 4


def test_strides_reach_beyond_2_31_elements_in_one_row() -> None:
    need(6)
    memory = torch.zeros(BEYOND + 8, dtype=torch.bfloat16, device="cuda")
    x = memory.as_strided((1, 2, 5), (BEYOND + 8, BEYOND, 1))
    x[0, 0], x[0, 1] = 1, 2
    assert ops.gram(x).tolist() == [[[5, 10], [10, 20]]]
