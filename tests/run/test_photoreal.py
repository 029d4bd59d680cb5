"""The photoreal pass, against the formula of the paper in dense matrices, SciPy's sparse solver, and pymatting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from support.pictures import as_tensor, samples
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.run import photoreal
from fastnst.run.photoreal import EPSILON, TOLERANCE, MattingLaplacian, pass_bytes, smooth, solve

LEVEL = 1 / 255
Array = NDArray[np.float64]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random(height: int, width: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    """A picture [3, H, W] in float64 with waves and noise, from ``low`` to ``high``."""
    waves = as_tensor(samples(height, width, seed=seed))[0].double()
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * (0.8 * waves + 0.2 * noise)


def matrix(guide: Tensor, epsilon: float = EPSILON) -> Array:
    """The matting Laplacian as a dense matrix, by equation 12 of Levin, Lischinski and Weiss (2008)."""
    _, height, width = guide.shape
    colors, laplacian = guide.flatten(1).T.numpy(), np.zeros((height * width, height * width))
    for row in range(height - 2):
        for column in range(width - 2):
            inside = [(row + i) * width + column + j for i in range(3) for j in range(3)]
            window = colors[inside]
            centered = window - window.mean(0)
            covariance = np.cov(window.T, bias=True) + epsilon / 9 * np.eye(3)
            likeness = (1 + centered @ np.linalg.inv(covariance) @ centered.T) / 9
            laplacian[np.ix_(inside, inside)] += np.eye(9) - likeness
    return laplacian


def exactly(y: Tensor, guide: Tensor, weight: float) -> Tensor:
    """The solution of ``(1 + weight L) x = y`` by SciPy's sparse LU decomposition."""
    system = scipy.sparse.identity(y[0].numel()) + weight * scipy.sparse.csc_matrix(matrix(guide))
    found = scipy.sparse.linalg.spsolve(system.tocsc(), y.flatten(1).T.numpy())
    return torch.from_numpy(found.T.copy()).reshape(y.shape)


@pytest.mark.parametrize("size", [(3, 3), (4, 3), (3, 9), (12, 11)])
@pytest.mark.parametrize("block", [1, 40, 2**14])
def test_the_laplacian_is_that_of_the_paper(size: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photoreal, "BLOCK", block)
    guide, count = random(*size), size[0] * size[1]
    basis = torch.eye(count, dtype=torch.float64).reshape(count, *size)
    found = MattingLaplacian(guide)(basis).flatten(1)
    torch.testing.assert_close(found, torch.from_numpy(matrix(guide)), atol=1e-9, rtol=0)


# Printed by pymatting 1.1.16 and SciPy for the pictures of `waves`: every fourteenth row of `L @ y` with
# `L = pymatting.cf_laplacian(guide, epsilon=3e-5)`, and of the solution of `(identity + 100 L) x = y` by `spsolve`.
PYMATTING_PRODUCT = [
    [-0.0003755621, -0.0015796093, -0.001331371],
    [-0.0013549058, 0.0170072659, 0.0197330358],
    [0.1335807453, 0.1482214142, 0.142171155],
    [-0.0052325545, -0.0088123012, -0.0042900588],
    [0.0206212921, 0.0142513186, -0.0052212515],
    [0.01671082, -0.0272989831, -0.014239992],
    [-0.0437168248, 0.0035407547, 0.0275123337],
    [-0.0215340886, -0.0887962589, -0.0744195583],
]
PYMATTING_SOLUTION = [
    [0.75416171, 0.67026677, 0.44129399],
    [0.76908105, 0.51753007, 0.24701473],
    [0.65182666, 0.48055924, 0.37303091],
    [0.51506419, 0.45207745, 0.5289839],
    [0.75057868, 0.509112, 0.25300532],
    [0.58015263, 0.44131908, 0.38324559],
    [0.37988694, 0.46501995, 0.67019359],
    [0.68523069, 0.86094993, 0.78363856],
]


def waves() -> tuple[Tensor, Tensor]:
    """A guide and a styled picture [3, 9, 11]."""
    y, x = np.mgrid[0:9, 0:11] / 11
    guide = [0.5 + 0.4 * np.sin(5 * x + 2 * y), 0.5 + 0.4 * np.cos(3 * x - 4 * y), 0.3 + 0.5 * x * y]
    styled = [0.5 + 0.3 * np.cos(9 * x * y + k) + 0.1 * (x > 0.5) for k in range(3)]
    return torch.from_numpy(np.stack(guide)), torch.from_numpy(np.stack(styled))


def test_product_and_solution_are_those_of_pymatting() -> None:
    guide, styled = waves()
    laplacian = MattingLaplacian(guide, 3e-5)
    product, solution = (x.flatten(1).T[::14] for x in (laplacian(styled), solve(styled, laplacian, 100.0)))
    torch.testing.assert_close(product, torch.tensor(PYMATTING_PRODUCT, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(solution, torch.tensor(PYMATTING_SOLUTION, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_the_pass_solves_the_equation(strength: float) -> None:
    content, styled = random(20, 26), random(20, 26, seed=3, low=0.3, high=0.7)
    expected = exactly(styled, content, 100 * strength)
    found = smooth(styled[None], content[None], strength)[0]
    assert found.dtype == torch.float64
    assert (found - expected).square().mean((1, 2)).sqrt().max() <= TOLERANCE
    assert (found - styled).abs().max() > 10 * LEVEL


def test_constants_are_kept_and_affine_functions_of_the_content() -> None:
    """``L`` of a constant is zero, as is, without epsilon, that of an affine function of the colors in each window."""
    content = random(24, 30)
    constant = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 24, 30)
    torch.testing.assert_close(smooth(constant, content[None], 100.0), constant, atol=1e-6, rtol=0)
    mixing = torch.tensor([[0.5, 0.2, -0.3], [0.1, 0.3, 0.3], [-0.4, 0.6, 0.1]], dtype=torch.float64)
    affine = torch.einsum("ij,jhw->ihw", mixing, content) + 0.2
    assert MattingLaplacian(content, epsilon=1e-12)(affine).abs().max() < 1e-8
    assert (smooth(affine[None], content[None], 1.0)[0] - affine).square().mean().sqrt() < 4 * LEVEL


def test_the_result_has_the_edges_of_the_content_and_no_strokes() -> None:
    """Across an edge of the content that the styled picture lost, the result has one; within regions strokes vanish."""
    content, styled = torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.5)
    content[..., 16:] = 0.8
    styled[..., 18:] = 0.9  # two pixels off
    styled[..., ::2, :] += 0.05
    found = smooth(styled, content, 1.0)
    steps = (found[..., 1:] - found[..., :-1]).abs().mean((0, 1, 2))
    assert int(steps.argmax()) == 15
    assert steps[15] > 0.25
    stripes = (found[..., 1:, :] - found[..., :-1, :]).abs()[..., 4:-4, :]
    assert stripes.max() < 0.01


def test_strength_zero_and_pictures_without_a_window_are_returned() -> None:
    image = torch.rand(1, 3, 8, 9)
    assert smooth(image, torch.rand(1, 3, 8, 9), 0.0) is image
    assert smooth(image[:, :, :2], torch.rand(1, 3, 2, 9), 1.0).shape == (1, 3, 2, 9)


@pytest.mark.parametrize("strength", [-1.0, 101.0, float("nan"), float("inf")])
def test_a_strength_out_of_range_is_one_line(strength: float) -> None:
    with pytest.raises(UsageError, match="photoreal: expected a finite number of at least 0 and at most 100, got"):
        smooth(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), strength)


def test_pictures_of_different_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="expected pictures of one size"):
        smooth(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9), 1.0)


@pytest.mark.usefixtures("threads")
def test_bits_depend_neither_on_threads_nor_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    image, content = (random(48, 64, seed=seed)[None].float() for seed in (1, 2))
    torch.set_num_threads(1)
    first = smooth(image, content, 1.0)
    monkeypatch.setattr(photoreal, "BLOCK", 700)
    torch.set_num_threads(2)
    assert torch.equal(first, smooth(image, content, 1.0))


def test_a_black_and_a_gray_content_are_solved() -> None:
    image = random(16, 16)[None].float()
    for content in (torch.zeros_like(image), image.mean(1, keepdim=True).expand_as(image)):
        found = smooth(image, content, 100.0)
        assert bool(found.isfinite().all())
        assert 0 <= found.min() <= found.max() <= 1


# Pictures that are solved at a smaller size.


def test_local_coefficients_give_the_picture() -> None:
    content, x = random(15, 20), random(15, 20, seed=4)
    local = MattingLaplacian(content).local(x)
    torch.testing.assert_close((local[:, :3] * content).sum(1) + local[:, 3], x, atol=1e-12, rtol=0)
    affine = 0.3 * content[:1] + 0.5 * content[1:2] + 0.1
    slopes = MattingLaplacian(content, epsilon=1e-12).local(affine)[0]
    expected = torch.tensor([0.3, 0.5, 0.0, 0.1], dtype=torch.float64).view(4, 1, 1).expand_as(slopes)
    torch.testing.assert_close(slopes, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(47, 64), (30, 21), (22, 90)])
def test_coefficients_are_enlarged_as_by_torch(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photoreal, "BLOCK", 200)
    local, content = torch.rand(3, 4, 22, 21, dtype=torch.float64) / 4, random(*size)[None]
    whole = F.interpolate(local, size, mode="bilinear", align_corners=False)
    expected = (whole[:, :3] * content).sum(1) + whole[:, 3]
    torch.testing.assert_close(photoreal._enlarged(local, content, content)[0], expected, atol=1e-12, rtol=0)


def test_a_large_picture_is_solved_at_a_smaller_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is near the one that is solved itself, and keeps constants."""
    content, image = (as_tensor(samples(96, 128, seed=seed)) for seed in (0, 2))
    whole = smooth(image, content, 1.0)
    monkeypatch.setattr(photoreal, "MOST_PIXELS", 96 * 128 // 4)
    sizes = []
    real = photoreal.solve

    def watched(y: Tensor, laplacian: MattingLaplacian, weight: float) -> Tensor:
        sizes.append((tuple(y.shape), weight))
        return real(y, laplacian, weight)

    monkeypatch.setattr(photoreal, "solve", watched)
    found = smooth(image, content, 1.0)
    assert sizes == [((3, 48, 64), pytest.approx(25.0))]
    change = (whole - image).square().mean().sqrt()
    assert (found - whole).square().mean().sqrt() < 0.5 * change
    constant = torch.full_like(image, 0.25)
    torch.testing.assert_close(smooth(constant, content, 1.0), constant, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(10**6, 2), (10**6, 3), (3, 10**6), (12000, 9000), (513, 512)])
def test_the_size_that_is_solved_is_bounded(size: tuple[int, int]) -> None:
    height, width = photoreal._solved_size(*size)
    assert min(height, width) >= 3
    assert height * width <= 3 * max(size) if min(size) <= 3 else height * width <= photoreal.MOST_PIXELS


MEASURE = """
import torch
from pathlib import Path
from fastnst.run.photoreal import pass_bytes, smooth
torch.set_num_threads(1)
image, content = (torch.rand(1, 3, 512, 256, generator=torch.Generator().manual_seed(i)) for i in range(2))
smooth(image[..., :40, :40], content[..., :40, :40], 1.0)
held = torch.ones_like(image)
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
peak = lambda: next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
before = peak()
smooth(image, content, 0.3)
print((peak() - before) * 1024, pass_bytes(512, 256, 0.3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_memory_is_at_most_that_of_the_estimate() -> None:
    found = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True).stdout
    taken, estimate = map(int, found.split())
    assert 0.4 * estimate < taken < 1.1 * estimate
    assert pass_bytes(10**5, 10**5, 1.0) == pass_bytes(512, 512, 1.0)
