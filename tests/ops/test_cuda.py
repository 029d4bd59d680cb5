"""Accuracy on a CUDA device, whichever serves it: kernels of ours, or the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import (
    CASES,
    DIFFERENTIABLE,
    DTYPES,
    SHAPES,
    Case,
    Shape,
    channels_last,
    contiguous,
    doubles,
    gradients,
    relative_error,
)
from torch import Tensor

from fastnst import ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
both_layouts = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)


def bound(case: Case, dtype: torch.dtype) -> float:
    """Kernels of ours keep 1e-6 in float32; the reference sums as cuBLAS does."""
    ours = ops.kernels("cuda")[case.name.split()[0]] != "reference"
    return {torch.float32: 1e-6 if ours else 1e-5, torch.float64: 1e-13, torch.bfloat16: 5e-3, torch.float16: 6e-4}[
        dtype
    ]


def assert_accurate(case: Case, shape: Shape, got: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> None:
    for y, z in zip(got, exact, strict=True):
        assert y.is_cuda
        assert relative_error(y, z) <= bound(case, y.dtype), shape


@every_dtype
@both_layouts
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_on_cuda_equals_the_definition_in_float64(
    case: Case, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    for shape in filter(case.takes, SHAPES):
        t = case.tensors(shape, dtype, "cuda")
        t["x"] = layout(t["x"])
        assert_accurate(case, shape, case.call(t), case.exact(doubles(t)))


@every_dtype
@both_layouts
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradient_on_cuda_equals_autograd_in_float64(
    case: Case, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    for shape in ((2, 19, 7, 13), (1, 130, 9, 8), (1, 64, 65, 66)):
        t = case.tensors(shape, dtype, "cuda")
        t["x"] = layout(t["x"])
        got = gradients(case.call, t, case.differentiable)
        assert got[0].stride() == torch.empty_like(t["x"]).stride()
        assert_accurate(case, shape, got, gradients(case.exact, doubles(t), case.differentiable))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ops_on_cuda_run_on_the_current_stream(case: Case) -> None:
    t = case.tensors((1, 64, 65, 66), torch.float32, "cuda")
    expected = case.call(t)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        late = {name: value * 1 for name, value in t.items()}  # not there before the sleep ends
        got = case.call(late)
    stream.synchronize()
    for y, z in zip(got, expected, strict=True):
        torch.testing.assert_close(y, z)


def test_two_devices_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected target on cuda:0 like x, got cpu"):
        ops.content_loss(torch.ones(1, 2, 3, device="cuda"), torch.ones(1, 2, 3))
