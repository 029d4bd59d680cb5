"""The bytes and operations that the table of a step counts, by hand for single ops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.gpu.step_launches import BANDWIDTH, CONVOLUTION_SHARE, LAUNCH, MATRIX, Recorded, Recorder, step


def recorded(call: object) -> list[Recorded]:
    assert callable(call)
    with Recorder() as recorder:
        call()
    return recorder.ops


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


IMAGE = 3 * 8 * 8 * 4


def test_views_and_allocations_are_no_launches() -> None:
    assert recorded(lambda: meta(4, 4).view(16)[2:].unsqueeze(0)) == []


def test_a_tensor_that_is_written_in_place_counts_twice_and_an_output_once() -> None:
    x, scale = meta(1, 3, 8, 8), meta(1, 3, 1, 1)
    (add,) = recorded(lambda: x.add_(x.detach()))
    assert add.bytes == 3 * IMAGE
    (to,) = recorded(lambda: torch.mul(x, scale, out=meta(1, 3, 8, 8, dtype=torch.bfloat16)))
    assert to.bytes == IMAGE + 3 * 4 + IMAGE // 2
    (both,) = recorded(lambda: torch.addcmul(x, meta(1, 3, 8, 8), scale, out=x))
    assert both.bytes == 3 * IMAGE + 3 * 4


@pytest.mark.parametrize("keep", [False, True])
def test_a_pool_writes_the_map_that_it_keeps(keep: bool) -> None:
    x, bias = meta(1, 4, 8, 8), meta(4)
    (op,) = recorded(lambda: torch.ops.fastnst.bias_relu_pool_(x, bias, "max", keep))
    assert op.bytes == (1 + keep) * 4 * 64 * 4 + 16 + 4 * 16 * 5  # the map, the bias, the pooled map and its argmax


def test_a_step_of_adam_reads_the_gradient_twice_and_writes_four_images() -> None:
    image, good, mean, square, gradient = (meta(1, 3, 8, 8) for _ in range(5))
    numbers = (meta(1, dtype=torch.int32), meta(3, dtype=torch.float64), meta(2))
    table, rate = meta(5, 2, dtype=torch.float64), meta(dtype=torch.float64)
    given = (image, good, mean, square, *numbers, gradient, table, rate, 0.9, 0.999, 1e-8, 1.0, False)
    (op,) = recorded(lambda: torch.ops.fastnst.adam_step_(*given))
    assert (op.launches, op.bytes - 9 * IMAGE) == (2, 2 * 4 + 3 * 8 + 2 * 4 + 5 * 2 * 8 + 8)


def test_convolutions_are_bound_by_products_and_passes_by_bytes() -> None:
    ops = step(512)
    convolutions = [op for op in ops if "convolution" in op.name]
    # Two operations for each weight and position, forward and backward: conv1_2 has 64 x 64 x 9 weights.
    assert sorted(op.operations for op in convolutions)[-1] == 2 * 64 * 64 * 9 * 512**2
    slowest = max(convolutions, key=lambda op: op.seconds)
    assert slowest.seconds == LAUNCH + slowest.operations / (MATRIX * CONVOLUTION_SHARE)
    (pool, *_) = [op for op in ops if op.name == "bias_relu_pool_"]
    assert pool.seconds == LAUNCH + pool.bytes / BANDWIDTH
