"""The direction of L-BFGS against the textbook two-loop recursion in float64, and its history buffer."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from fastnst.optim import lbfgs
from fastnst.optim.lbfgs import LBFGS

Pair = tuple[Tensor, Tensor]


def two_loops(pairs: list[Pair], gradient: Tensor, scale: float = 1.0) -> Tensor:
    """Nocedal and Wright, algorithm 7.4; pairs are ordered from the oldest to the newest.

    The initial scale is a third of the way, in logarithms, from the short to the long step of Barzilai and Borwein.
    """
    q, alphas = gradient.double(), []
    wide = [(s.double(), y.double()) for s, y in pairs]
    for s, y in reversed(wide):
        alphas.append(s.dot(q) / s.dot(y))
        q = q - alphas[-1] * y
    if wide:
        s, y = wide[-1]
        short, long = s.dot(y) / y.dot(y), s.dot(s) / s.dot(y)
        scale = math.exp((2 * math.log(short) + math.log(long)) / 3)
    q = q * scale
    for s, y in wide:
        q = q + (alphas.pop() - y.dot(q) / s.dot(y)) * s
    return -q


class Ravine:
    """Curvatures over four orders of magnitude and a term of fourth order, as in style losses; a minimum at 120."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.curvatures = 10 ** torch.empty(shape).uniform_(-2, 2, generator=torch.Generator().manual_seed(1))

    def gradient(self, image: Tensor) -> Tensor:
        offset = image - 120
        smooth = offset - 0.5 * (offset.roll(1, -1) + offset.roll(1, -2))
        return self.curvatures * smooth + 1e-3 * offset**3

    def start(self) -> Tensor:
        return torch.rand(self.curvatures.shape, generator=torch.Generator().manual_seed(2)) * 255


def follow(optimizer: LBFGS, ravine: Ravine, image: Tensor, steps: int, history: int) -> list[tuple[float, float]]:
    """Take steps; returns the relative error of each direction and its scalar product with the gradient."""
    pairs: list[Pair] = []
    found = []
    last: Pair | None = None
    for _ in range(steps):
        gradient = ravine.gradient(image)
        flat = gradient.flatten()
        if last is not None:
            change, gradient_change = last[0], flat - last[1]
            if change.double().dot(gradient_change.double()) > (
                lbfgs.LEAST_CURVATURE * gradient_change.double().square().sum()
            ):
                pairs = [*pairs, (change, gradient_change)][-history:]
        optimizer.step(image, gradient)
        assert optimizer.direction is not None
        direction = optimizer.direction.double()
        if pairs and len(optimizer.used) == len(pairs):
            expected = two_loops(pairs, flat)
            expected *= min(1.0, lbfgs.MOST_CHANGE / expected.abs().mean().item())
            error = (direction - expected).norm() / expected.norm()
            found.append((error.item(), flat.double().dot(direction).item()))
        last = (optimizer.direction.clone(), flat)
    assert len(found) >= steps - 1 - len(found) // 10
    return found


@pytest.mark.parametrize("history", [100, 20, 2])
def test_the_direction_equals_the_two_loop_recursion_over_a_long_run(
    history: int,
) -> None:
    ravine = Ravine((1, 3, 37, 43))
    image = ravine.start()
    found = follow(LBFGS(image, history=history), ravine, image, 160, history)
    assert max(error for error, _ in found) <= 1e-5
    assert all(product < 0 for _, product in found)


def test_a_bfloat16_history_gives_a_similar_descent_direction() -> None:
    ravine = Ravine((1, 3, 37, 43))
    image = ravine.start()
    found = follow(LBFGS(image, history=20, dtype=torch.bfloat16), ravine, image, 160, 20)
    assert sorted(error for error, _ in found)[len(found) // 2] <= 0.02
    assert all(product < 0 for _, product in found)

    def late(dtype: torch.dtype | None) -> float:
        """The median norm of the gradient over the last 40 of 160 steps; that of one step jumps up and down."""
        image, norms = ravine.start(), []
        optimizer = LBFGS(image, history=20, dtype=dtype)
        for _ in range(160):
            optimizer.step(image, ravine.gradient(image))
            norms.append(float(ravine.gradient(image).norm()))
        return statistics.median(norms[-40:])

    assert late(torch.bfloat16) <= 2 * late(None)


@pytest.mark.parametrize(("dtype", "itemsize"), [(None, 4), (torch.bfloat16, 2)])
def test_the_history_is_one_persistent_buffer(dtype: torch.dtype | None, itemsize: int) -> None:
    ravine = Ravine((1, 3, 20, 30))
    image = ravine.start()
    optimizer = LBFGS(image, history=4, dtype=dtype)
    address = optimizer.pairs.data_ptr()
    for _ in range(10):
        optimizer.step(image, ravine.gradient(image))
    assert optimizer.pairs.data_ptr() == address
    assert optimizer.pairs.nbytes == 4 * 2 * image.numel() * itemsize


def test_a_pair_without_positive_curvature_replaces_the_oldest_and_is_ignored() -> None:
    image = torch.zeros(1, 3, 4, 5, dtype=torch.float64)
    optimizer = LBFGS(image, history=3)
    stiffness = torch.rand(image.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    pairs: list[Pair] = []
    change = before = torch.zeros(image.numel(), dtype=torch.float64)
    for number in range(12):
        flipped = number in (5, 9, 10)  # the gradient changes against the step
        gradient = before - change if flipped else (stiffness * (image - 50)).flatten()
        if number > 0:
            pairs = pairs[-2:] if flipped else [*pairs[-2:], (change, gradient - before)]
        optimizer.step(image, gradient.view_as(image))
        assert optimizer.direction is not None
        if number > 0:
            expected = two_loops(pairs, gradient)
            expected *= min(1.0, lbfgs.MOST_CHANGE / expected.abs().mean().item())
            torch.testing.assert_close(optimizer.direction, expected, rtol=1e-9, atol=1e-9)
        change, before = optimizer.direction.clone(), gradient


def test_the_scale_of_earlier_pairs_serves_when_none_is_left() -> None:
    """The only pair is overwritten by one of negative curvature: the direction is the scaled gradient."""
    image = torch.zeros(1, 3, 4, 5)
    optimizer = LBFGS(image, history=1)
    first = torch.ones_like(image)
    optimizer.step(image, first)
    optimizer.step(image, 0.9 * first)
    assert optimizer.used == [0]
    scale = optimizer.scale
    optimizer.step(image, 0.95 * first)  # the image went down and the gradient up
    assert optimizer.used == []
    assert optimizer.direction is not None
    wanted = -scale * 0.95 * first.flatten()
    wanted *= min(1.0, lbfgs.MOST_CHANGE / wanted.abs().mean().item())
    torch.testing.assert_close(optimizer.direction, wanted)
