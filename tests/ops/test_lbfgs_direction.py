"""The recursion of L-BFGS, against the inverse Hessian as a dense matrix: Nocedal and Wright, 2006, equation 7.19."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastnst.ops import reference

HISTORY = 7
STORED = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def history(size: int, dtype: torch.dtype, count: int = HISTORY) -> tuple[Tensor, Tensor]:
    """Pairs with positive curvatures as they are stored, and these curvatures."""
    generator = torch.Generator().manual_seed(size)
    s = torch.randn(count, size, dtype=torch.float64, generator=generator)
    y = s * torch.rand(size, dtype=torch.float64, generator=generator).add(0.5) + 0.1 * s.roll(1, -1)
    pairs = torch.stack((s, y), 1).to(dtype)
    return pairs, (pairs[:, 0].double() * pairs[:, 1].double()).sum(1)


def inverse_hessian(pairs: Tensor, slots: list[int], scale: float) -> Tensor:
    """``H = V^T H V + s s^T / s.y`` with ``V = I - y s^T / s.y``, from ``scale I``, the oldest pair first."""
    unit = torch.eye(pairs.shape[2], dtype=torch.float64)
    h = scale * unit
    for slot in reversed(slots):
        s, y = pairs[slot].double()
        v = unit - torch.outer(y, s) / s.dot(y)
        h = v.T @ h @ v + torch.outer(s, s) / s.dot(y)
    return h


def run(op: Any, direction: Tensor, pairs: Tensor, slots: list[int], curvatures: Tensor, scale: float) -> Tensor:
    found = direction.clone()
    op(found, pairs, torch.tensor(slots, dtype=torch.int64), curvatures[slots], scale)
    return found


@pytest.mark.parametrize("slots", [[3], [2, 1, 0, 6, 5, 4, 3], [5, 0, 4]], ids=["one", "all", "some"])
@pytest.mark.parametrize("size", [1, 5, 63, 64, 257, 700])
@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_direction_is_the_product_with_the_inverse_hessian(
    dtype: torch.dtype, stored: torch.dtype, size: int, slots: list[int]
) -> None:
    pairs, curvatures = history(size, stored)
    direction = torch.randn(size, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(dtype)
    exact = inverse_hessian(pairs, slots, 0.7) @ direction.double()
    bound = 1e-12 if dtype == torch.float64 else 2e-5
    for op in (torch.ops.fastnst.lbfgs_direction_, reference.lbfgs_direction_):
        found = run(op, direction, pairs, slots, curvatures, 0.7)
        assert (found.double() - exact).norm() <= bound * exact.norm()


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [100, 16384, 16385, 200_003])
def test_the_same_bits_with_any_number_of_threads(size: int, stored: torch.dtype) -> None:
    pairs, curvatures = history(size, stored)
    direction, before, found = torch.randn(size), torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(run(torch.ops.fastnst.lbfgs_direction_, direction, pairs, [1, 0, 6], curvatures, 0.3))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    wanted = run(reference.lbfgs_direction_, direction, pairs.float(), [1, 0, 6], curvatures, 0.3)
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "op", [torch.ops.fastnst.lbfgs_direction_, reference.lbfgs_direction_], ids=["op", "reference"]
)
def test_without_pairs_the_direction_is_scaled(op: Any) -> None:
    pairs, curvatures = history(5, torch.float32)
    direction = torch.randn(5)
    assert torch.equal(run(op, direction, pairs, [], curvatures, 0.7), 0.7 * direction)


def test_only_the_direction_is_written_and_other_slots_are_not_read() -> None:
    pairs, curvatures = history(100, torch.float32)
    pairs[2] = float("nan")
    memory, before = torch.full((116,), 5.0), pairs.clone()
    torch.ops.fastnst.lbfgs_direction_(memory[8:-8], pairs, torch.tensor([4, 3]), curvatures[[4, 3]], 1.0)
    assert memory.isfinite().all()
    assert (memory[:8] == 5).all()
    assert (memory[-8:] == 5).all()
    torch.testing.assert_close(pairs, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(stored: torch.dtype) -> None:
    pairs, curvatures = history(70, stored)
    given = (torch.rand(70), pairs, torch.tensor([1, 0]), curvatures[[1, 0]], 0.5)
    torch.library.opcheck(torch.ops.fastnst.lbfgs_direction_, given)


PAIRS, CURVATURES = history(4, torch.float32, 3)
SLOTS = torch.tensor([2, 0])
RIGHT = (torch.rand(4), PAIRS, SLOTS, CURVATURES[SLOTS], 1.0)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.rand(2, 2), "expected direction of one dimension, dense, of dtype float32 or float64"),
        (0, torch.rand(8)[::2], "expected direction of one dimension, dense, of dtype float32 or float64"),
        (0, torch.rand(4).bfloat16(), "expected direction of one dimension, dense, of dtype float32 or float64"),
        (0, torch.rand(5), r"expected pairs of shape \(history, 2, 5\), got \(3, 2, 4\)"),
        (1, PAIRS[:, :1], r"expected pairs of shape \(history, 2, 4\), got \(3, 1, 4\)"),
        (1, PAIRS.long(), "expected pairs contiguous, on the CPU, of a floating dtype"),
        (1, PAIRS.transpose(0, 2).contiguous().transpose(0, 2), "expected pairs contiguous"),
        (2, SLOTS.int(), "expected slots of one dimension, contiguous, on the CPU, of dtype int64"),
        (2, SLOTS[:1], "expected curvatures of the shape of slots, contiguous, on the CPU, of dtype float64"),
        (2, torch.tensor([3, 0]), "expected slots of 0 to 2, got 3"),
        (2, torch.tensor([-1, 0]), "expected slots of 0 to 2, got -1"),
        (3, CURVATURES[SLOTS].float(), "expected curvatures of the shape of slots, contiguous, on the CPU"),
    ],
)
def test_wrong_arguments(position: int, value: Tensor, message: str) -> None:
    given = list(RIGHT)
    torch.ops.fastnst.lbfgs_direction_(*given)
    given[position] = value
    with pytest.raises(RuntimeError, match=f"lbfgs_direction_: {message}"):
        torch.ops.fastnst.lbfgs_direction_(*given)


def test_it_has_no_derivative() -> None:
    given = (torch.rand(4, requires_grad=True), *RIGHT[1:])
    with pytest.raises(RuntimeError, match=r"lbfgs_direction_: has no derivative, but direction requires a gradient"):
        torch.ops.fastnst.lbfgs_direction_(*given)
