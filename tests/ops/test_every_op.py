"""Properties of every op: accuracy, layouts, reproducibility, and what is read and saved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import (
    BOUNDS,
    CASES,
    DIFFERENTIABLE,
    DTYPES,
    LAYOUTS,
    SHAPES,
    Case,
    Shape,
    Tensors,
    channels_last,
    contiguous,
    doubles,
    gradients,
    noise,
    relative_error,
    reversed_axes,
)
from torch import Tensor
from torch._subclasses import FakeTensorMode

from fastnst import ops

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_differentiable = pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


def assert_accurate(got: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> None:
    assert len(got) == len(exact)
    for y, z in zip(got, exact, strict=True):
        assert relative_error(y, z) <= BOUNDS[y.dtype]


def shapes_for(case: Case) -> list[Shape]:
    return [shape for shape in SHAPES if case.takes(shape)]


WITH_SHAPES = [pytest.param(case, shape, id=f"{case}-{shape}") for case in CASES for shape in shapes_for(case)]


@every_dtype
@pytest.mark.parametrize(("case", "shape"), WITH_SHAPES)
@pytest.mark.sweep(3)
def test_value_equals_the_definition_in_float64(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    t = case.tensors(shape, dtype)
    assert_accurate(case.call(t), case.exact(doubles(t)))


@every_dtype
@pytest.mark.parametrize(
    ("case", "shape"),
    [
        pytest.param(case, shape, id=f"{case}-{shape}")
        for case in DIFFERENTIABLE
        for shape in shapes_for(case)
        if 0 not in shape
    ],
)
def test_gradient_equals_autograd_in_float64(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    t = case.tensors(shape, dtype)
    got = gradients(case.call, t, case.differentiable)
    assert [g.dtype for g in got] == [t[name].dtype for name in case.differentiable]
    assert_accurate(got, gradients(case.exact, doubles(t), case.differentiable))


@every_differentiable
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if 0 in shape], ids=str)
def test_gradient_of_nothing_is_nothing(case: Case, shape: Shape) -> None:
    t = case.tensors(shape, torch.float32)
    for g, name in zip(gradients(case.call, t, case.differentiable), case.differentiable, strict=True):
        assert g.shape == t[name].shape


@every_dtype
@every_layout
@every_case
def test_any_layout_gives_the_same(case: Case, layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    t = case.tensors((2, 19, 7, 13), dtype)
    laid_out = {**t, "x": layout(t["x"])}
    if case.name.startswith("layer_backward") and not _in_place(laid_out["x"]):
        with pytest.raises(ValueError, match="expected x contiguous or channels_last"):
            case.call(laid_out)
        return
    assert_accurate(case.call(laid_out), case.exact(doubles(t)))
    if case.differentiable:
        exact = gradients(case.exact, doubles(t), case.differentiable)
        got = gradients(case.call, laid_out, case.differentiable)
        assert_accurate(got, exact)
        if not case.name.startswith("pool") or _in_place(laid_out["x"]):
            assert got[0].stride() == torch.empty_like(laid_out["x"]).stride()


def _in_place(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


@every_layout
@every_case
def test_the_other_inputs_may_have_any_layout(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    t = case.tensors((2, 19, 7, 13), torch.float32)
    laid_out = {name: value if name in ("x", "grad") or value.dim() < 2 else layout(value) for name, value in t.items()}
    assert_accurate(case.call(laid_out), case.exact(doubles(t)))


@pytest.mark.parametrize("case", [case for case in CASES if not case.image], ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 300), (2, 5, 3, 4, 6)], ids=str)
def test_any_number_of_axes_in_both_layouts(case: Case, layout: Callable[[Tensor], Tensor], shape: Shape) -> None:
    t = case.tensors(shape, torch.float32)
    laid_out = {**t, "x": layout(t["x"])}
    assert_accurate(case.call(laid_out), case.exact(doubles(t)))
    if case.differentiable:
        assert_accurate(
            gradients(case.call, laid_out, case.differentiable),
            gradients(case.exact, doubles(t), case.differentiable),
        )


@pytest.mark.parametrize("axis", range(4), ids=("batch", "channels", "rows", "columns"))
@pytest.mark.parametrize("case", [case for case in CASES if "layer_backward" not in case.name], ids=str)
def test_expanded_features_are_read_as_repeated(case: Case, axis: int) -> None:
    shape = (3, 5, 6, 7)
    t = case.tensors(shape, torch.float32)
    t["x"] = t["x"].narrow(axis, 0, 1).expand(shape)
    assert_accurate(case.call(t), case.exact(doubles(t)))
    if case.differentiable:
        assert_accurate(
            gradients(case.call, t, case.differentiable), gradients(case.exact, doubles(t), case.differentiable)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_case
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("shape", [(1, 33, 61, 67), (1, 300, 17, 19)], ids=str)
def test_bits_do_not_depend_on_run_or_threads(
    case: Case, shape: Shape, dtype: torch.dtype, layout: Callable[[Tensor], Tensor]
) -> None:
    t = case.tensors(shape, dtype)
    t["x"] = layout(t["x"])
    runs = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        by = gradients(case.call, t, case.differentiable) if case.differentiable else ()
        runs.append((*case.call(t), *by))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


def copies(run: Callable[[], object], shape: Shape) -> int:
    """The number of copies of a tensor of that shape in a run, counted by the profiler also inside compiled kernels."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True, acc_events=True) as profile:
        run()
    copied = [event.input_shapes[0] for event in profile.events() or () if event.name == "aten::copy_"]
    return copied.count(list(shape))


@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
@every_case
def test_contiguous_and_channels_last_are_not_copied(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    shape = (2, 5, 6, 7)
    t = case.tensors(shape, torch.float32)
    t = {name: layout(value) if value.shape == shape else value for name, value in t.items()}
    if not case.differentiable:
        assert copies(lambda: case.call(t), shape) == case.copies
        return
    leaves = {name: value.detach().requires_grad_(name in case.differentiable) for name, value in t.items()}
    cotangents = [torch.ones_like(y) for y in case.call(leaves)]

    def run() -> None:
        torch.autograd.backward(case.call(leaves), cotangents, inputs=[leaves["x"]])

    run()  # creates .grad
    leaves["x"].grad = None
    assert copies(run, shape) == 0


def test_the_count_of_copies_sees_a_copy_inside_a_kernel() -> None:
    x = reversed_axes(noise((2, 5, 6, 7)).float())
    assert copies(lambda: torch.ops.fastnst.gram(x, None, 1.0), (2, 5, 6, 7)) == 1


@every_case
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_value_that_is_not_finite_propagates(case: Case, value: float, dtype: torch.dtype) -> None:
    t = case.tensors((2, 5, 6, 7), dtype)
    if case.lower and value == -float("inf"):
        pytest.skip("a maximum hides it")
    poisoned = "grad" if "layer_backward" in case.name else "x"
    t["x"][1] += 1  # not hidden by a mask
    t[poisoned][1, 3, 2, 4] = value
    for y in case.call(t):
        assert not y[1].isfinite().all() if y.dim() else not y.isfinite()
        if y.dim():
            assert y[0].isfinite().all()


@every_case
def test_inference_mode_gives_the_same(case: Case) -> None:
    t = case.tensors((2, 5, 6, 7), torch.float32)
    with torch.inference_mode():
        got = case.call(t)
    assert all(torch.equal(a, b) for a, b in zip(got, case.call(t), strict=True))


def _meta(t: Tensors) -> Tensors:
    return {name: value.to("meta") for name, value in t.items()}


def _fake(t: Tensors) -> Tensors:
    mode = FakeTensorMode()
    return {name: mode.from_tensor(value) for name, value in t.items()}


@every_dtype
@every_case
@pytest.mark.parametrize("stand_in", [_meta, _fake], ids=("meta", "fake"))
def test_meta_and_fake_tensors_have_the_shape_and_strides_of_the_result(
    case: Case, dtype: torch.dtype, stand_in: Callable[[Tensors], Tensors]
) -> None:
    t = case.tensors((2, 5, 6, 7), dtype)
    for predicted, real in zip(case.call(stand_in(t)), case.call(t), strict=True):
        assert (predicted.shape, predicted.dtype, predicted.stride()) == (real.shape, real.dtype, real.stride())


@every_differentiable
def test_inputs_are_not_modified(case: Case) -> None:
    t = case.tensors((2, 5, 6, 7), torch.float32)
    before = {name: value.clone() for name, value in t.items()}
    gradients(case.call, t, case.differentiable)
    assert all(torch.equal(t[name], before[name]) for name in t)


def test_every_op_uses_the_same_kernel_table_and_other_devices_run_the_reference() -> None:
    served = ops.kernels()
    assert set(served) == set(ops.NAMES)
    assert {name for name, by in served.items() if by == "reference"} == {"bias_relu_", "bias_relu_style_loss"}
    assert set(served.values()) - {"reference"} in ({"portable"}, {"avx2"}, {"avx512"}, {"avx512_bf16"}, {"neon"})
    assert set(ops.kernels("mps").values()) == {"reference"}
