"""Shared by the tests on a CUDA device: marks, error bounds, and the shapes of a real network."""

from __future__ import annotations

import pytest
import torch
from op_cases import Case, Shape, Tensors, doubles, relative_error
from torch import Tensor

from fastnst import ops

NEEDS_CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# The style layers of VGG-19 for an image of 256 x 256, and batches of odd sizes.
NETWORK: tuple[Shape, ...] = (
    (1, 64, 256, 256),
    (1, 128, 128, 128),
    (1, 256, 64, 64),
    (1, 512, 32, 32),
    (1, 512, 16, 16),
    (3, 96, 37, 41),
)

TF32_BOUND = 2e-3
MATRIX_OPS = ("gram", "moments", "style_loss", "layer_backward_", "bias_relu_style_loss")


def op_of(case: Case) -> str:
    return case.name.split()[0]


def bound(case: Case, dtype: torch.dtype) -> float:
    """The kernels keep 1e-6 in float32; the reference has the accuracy of cuBLAS."""
    ours = ops.kernels("cuda")[op_of(case)] != "reference"
    return {torch.float32: 1e-6 if ours else 1e-5, torch.float64: 1e-13, torch.bfloat16: 5e-3, torch.float16: 6e-4}[
        dtype
    ]


def assert_accurate(case: Case, shape: Shape, got: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> None:
    for y, z in zip(got, exact, strict=True):
        assert y.is_cuda
        assert relative_error(y, z) <= bound(case, y.dtype), shape


def assert_right(case: Case, t: Tensors, got: tuple[Tensor, ...]) -> None:
    """Compare the results of an op for ``t`` with the definition in float64."""
    assert_accurate(case, tuple(t["x"].shape), got, case.exact(doubles(t)))
