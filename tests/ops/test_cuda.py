"""Accuracy on a CUDA device, of the kernels or of the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from cuda_device import MATRIX_OPS, NEEDS_CUDA, NETWORK, TF32_BOUND, assert_accurate, assert_right, op_of
from op_cases import (
    CASES,
    DIFFERENTIABLE,
    DTYPES,
    LAYOUTS,
    SHAPES,
    Case,
    channels_last,
    contiguous,
    doubles,
    gradients,
    relative_error,
)
from torch import Tensor

from fastnst import ops

pytestmark = NEEDS_CUDA

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
both_layouts = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda layout: layout.__name__)
matrix_cases = pytest.mark.parametrize("case", [case for case in CASES if op_of(case) in MATRIX_OPS], ids=str)


@pytest.fixture
def _precision_restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    ops.follow_matmul_precision()


@every_dtype
@both_layouts
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_on_cuda_equals_the_definition_in_float64(
    case: Case, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    for shape in filter(case.takes, (*SHAPES, *NETWORK)):
        t = case.tensors(shape, dtype, "cuda")
        t["x"] = layout(t["x"])
        assert_right(case, t, case.call(t))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layout_gives_the_right_value_or_an_error(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    for shape in ((2, 5, 6, 7), (1, 64, 33, 31)):
        t = case.tensors(shape, torch.float32, "cuda")
        t["x"] = layout(t["x"])
        if op_of(case) == "layer_backward_" and layout.__name__ not in ("contiguous", "channels_last", "offset"):
            with pytest.raises(ValueError, match=r"^layer_backward_: expected "):
                case.call(t)
        else:
            assert_right(case, t, case.call(t))


@every_dtype
@both_layouts
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradient_on_cuda_equals_autograd_in_float64(
    case: Case, layout: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    for shape in ((2, 19, 7, 13), (1, 130, 9, 8), (1, 64, 65, 66), (1, 512, 16, 16)):
        t = case.tensors(shape, dtype, "cuda")
        t["x"] = layout(t["x"])
        got = gradients(case.call, t, case.differentiable)
        assert got[0].stride() == torch.empty_like(t["x"]).stride()
        assert_accurate(case, shape, got, gradients(case.exact, doubles(t), case.differentiable))


@pytest.mark.usefixtures("_precision_restored")
@both_layouts
@matrix_cases
def test_high_matmul_precision_is_tf32_and_highest_is_float32_again(
    case: Case, layout: Callable[[Tensor], Tensor]
) -> None:
    for shape in ((2, 64, 65, 66), *NETWORK):
        t = case.tensors(shape, torch.float32, "cuda")
        t["x"] = layout(t["x"])
        exact = case.exact(doubles(t))
        torch.set_float32_matmul_precision("high")
        rough = case.call(t)
        assert max(relative_error(y, z) for y, z in zip(rough, exact, strict=True)) <= TF32_BOUND, shape
        torch.set_float32_matmul_precision("highest")
        assert_accurate(case, shape, case.call(t), exact)


@pytest.mark.usefixtures("_precision_restored")
def test_tf32_is_used_where_it_is_asked_for_and_there() -> None:
    if ops.kernels("cuda")["gram"] == "reference" or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs our kernels and a device with TF32")
    x = torch.randn(1, 256, 64, 64, device="cuda")
    fine = ops.gram(x)
    torch.set_float32_matmul_precision("high")
    assert not torch.equal(ops.gram(x), fine)
