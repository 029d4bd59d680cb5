"""More than 2^31 elements: every index and count is 64 bits wide."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from fastnst import ops

BEYOND = 2**31 + 6
GIB = 2**30


def untouched_zeros(count: int) -> Tensor:
    """bfloat16 zeros without memory until they are written: the system maps one page of zeros for reads."""
    return torch.from_numpy(np.zeros(count, np.int16)).view(torch.bfloat16)


def need(gibibytes: float) -> None:
    if psutil.virtual_memory().available < gibibytes * GIB:
        pytest.skip(f"needs {gibibytes} GiB of free memory")


def test_content_loss_of_more_than_2_31_elements() -> None:
    need(6)  # reads take little memory, but 4 GiB on a system without a shared page of zeros
    memory = untouched_zeros(BEYOND + 1)
    memory[-1] = 3
    x, target = memory[1:], memory[:-1]
    assert ops.content_loss(x, target) == 9


def test_gram_and_its_gradient_reach_beyond_2_31_elements() -> None:
    """Two channels at distant addresses, of which only a few values are accessed."""
    need(6)
    x = untouched_zeros(BEYOND + 8).as_strided((1, 2, 5), (BEYOND + 8, BEYOND, 1))
    x[0, 0], x[0, 1] = 1, 2
    x.requires_grad_()
    g = ops.gram(x)
    assert g.tolist() == [[[5, 10], [10, 20]]]
    (gradient,) = torch.autograd.grad(g.sum(), x)
    assert gradient.tolist() == [[[6] * 5] * 2]


def test_total_variation_reaches_beyond_2_31_elements() -> None:
    need(6)
    x = untouched_zeros(BEYOND + 8).as_strided((1, 1, 2, 4), (BEYOND + 8, BEYOND + 8, BEYOND, 1))
    x[0, 0, 1, 3] = 3
    x.requires_grad_()
    value = ops.total_variation(x, "squared")
    assert value == 18
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.tolist() == [[[[0, 0, 0, -6], [0, 0, -6, 12]]]]
