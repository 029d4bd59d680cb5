"""L-BFGS on z, where the image is A z: the matrix A, the step in z, and the number of steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastnst.optim.conditioning import ConditionedLBFGS, frequency_weights, precondition
from fastnst.optim.lbfgs import LBFGS


def matrix(height: int, width: int) -> Tensor:
    """A, column by column."""
    units = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    return precondition(units, frequency_weights(height, width)).flatten(1)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 9), (4, 4)])
def test_a_is_symmetric_and_positive(height: int, width: int) -> None:
    a = matrix(height, width)
    torch.testing.assert_close(a, a.mT, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(a).min() > 0.1


@pytest.mark.parametrize(
    ("cycles", "square"), [(0, 1 + 3.2**1.5), (1, 1 + 3.2**1.5), (4, 1 + 0.8**1.5), (16, 1 + 0.2**1.5)]
)
def test_a_wave_is_multiplied_by_a_root_that_falls_with_its_frequency(cycles: int, square: float) -> None:
    """Frequencies of 0, which counts as 0.025, and 0.025, 0.1 and 0.4; at 0.1 the factor is 1."""
    weight = (square / (1 + 0.8**1.5)) ** 0.5
    wave = torch.cos(2 * math.pi * cycles / 40 * torch.arange(40, dtype=torch.float64)).expand(1, 1, 10, 40)
    torch.testing.assert_close(precondition(wave, frequency_weights(10, 40)), weight * wave)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_a_step_equals_lbfgs_in_z(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    a = matrix(*size)
    curvature = torch.rand(a.shape[0], dtype=torch.float64) + 0.1
    image = torch.randn(1, 1, *size, dtype=torch.float64)
    z = torch.linalg.solve(a, image.flatten()).view_as(image)
    conditioned, plain = ConditionedLBFGS(image, 1.0, 5), LBFGS(z, 1.0, 5)
    for _ in range(12):
        conditioned.step(image, curvature.view_as(image) * image)
        plain.step(z, (a @ (curvature * (a @ z.flatten()))).view_as(z))
        torch.testing.assert_close(image.flatten(), a @ z.flatten())


def test_a_loss_of_low_curvature_at_low_frequencies_is_minimized_in_fewer_steps() -> None:
    """Curvature grows with frequency, as A's inverse square does."""
    spectrum = frequency_weights(32, 32) ** -2

    def steps(make: type[LBFGS] | type[ConditionedLBFGS]) -> int:
        image = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        start, optimizer = float(image.square().sum()), make(image, 1.0, 5)
        for number in range(1, 200):
            optimizer.step(image, precondition(image, spectrum))
            if float(image.square().sum()) < 1e-8 * start:
                return number
        return 200

    assert steps(ConditionedLBFGS) <= steps(LBFGS) / 2


@pytest.mark.parametrize("size", [(250, 334), (48, 64), (64, 64), (33, 32), (20, 16), (9, 8), (70, 65), (512, 128)])
def test_results_do_not_depend_on_the_number_of_threads(size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(precondition(x, frequency_weights(*size).float()))
    torch.set_num_threads(1)
    assert torch.equal(*found)
