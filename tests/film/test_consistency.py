"""Reliability of optical flow, against the rules of the authors' program written pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.film.films import FILMS
from fastnst.film import consistency
from fastnst.film.consistency import combine, reliability, stillness
from fastnst.film.flow import DisFlow
from fastnst.objective.pixels import PixelTarget


def smooth_flow(height: int, width: int, seed: int, size: float) -> Tensor:
    coarse = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)


def by_pixel(backward: Tensor, forward: Tensor, y: int, x: int) -> float:
    """The weight before smoothing, as consistencyChecker.cpp of manuelruder/artistic-videos decides: for a pixel and
    the flow 1 to the other frame, flow 2 back; -1 for a disocclusion, 0 at a motion boundary and outside."""
    height, width = backward.shape[-2:]
    u, v = backward[0, 0, y, x].item(), backward[0, 1, y, x].item()
    bx, by = x + u, y + v
    if bx < 0 or by < 0 or bx > width - 1 or by > height - 1:
        return 0.0
    x1, y1 = min(math.floor(bx), width - 2), min(math.floor(by), height - 2)
    ax, ay = bx - x1, by - y1

    def at(channel: int) -> float:
        rows = [
            (1 - ax) * forward[0, channel, row, x1].item() + ax * forward[0, channel, row, x1 + 1].item()
            for row in (y1, y1 + 1)
        ]
        return (1 - ay) * rows[0] + ay * rows[1]

    u2, v2 = at(0), at(1)
    if (u + u2) ** 2 + (v + v2) ** 2 >= 0.01 * (u * u + v * v + u2 * u2 + v2 * v2) + 0.5:
        return -1.0

    def near(channel: int, dy: int, dx: int) -> float:
        return backward[0, channel, min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)].item()

    edge = sum(
        ((near(c, 0, 1) - near(c, 0, -1)) / 2) ** 2 + ((near(c, 1, 0) - near(c, -1, 0)) / 2) ** 2 for c in (0, 1)
    )
    return 0.0 if edge > 0.01 * (u * u + v * v) + 0.002 else 1.0


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_those_of_the_program(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(consistency, "_smoothed", lambda weights: weights)
    backward = smooth_flow(24, 30, seed, 2.0)
    forward = -backward + smooth_flow(24, 30, seed + 10, 0.6)
    found = reliability(backward, forward)[0, 0]
    expected = torch.tensor([[by_pixel(backward, forward, y, x) for x in range(30)] for y in range(24)])
    assert {-1.0, 0.0, 1.0} == set(expected.unique().tolist())
    assert torch.equal(found, expected.clamp(min=0).to(found))


def test_what_a_square_uncovers_has_no_weight() -> None:
    film, flow = FILMS["square"](3, 120, 160), DisFlow()
    weight = reliability(flow(film.frames[2], film.frames[1]), flow(film.frames[1], film.frames[2]))
    uncovered = film.weights[1] == 0
    assert uncovered.any()
    assert weight[uncovered].mean() < 0.35
    assert weight[:, :, :, 120:].mean() > 0.95  # far from the square


def test_weights_fall_off_beside_what_is_unreliable() -> None:
    """Smoothing goes outward: a disoccluded pixel is below zero before it."""
    still, other = torch.zeros(1, 2, 21, 21), torch.zeros(1, 2, 21, 21)
    other[:, 0, 9:12, 9:12] = 5.0
    weight = reliability(still, other)[0, 0]
    assert weight[10, 10] == 0
    assert 0 < weight[10, 12] < 0.9
    assert weight[10, 15] == 1


def test_several_frames_become_one_target_with_the_same_gradient() -> None:
    """The sum of the losses of all frames with the weights of equation 9, written out."""
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand(1, 3, 6, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    weights = [torch.rand(1, 1, 6, 8, generator=generator, dtype=torch.float64) * 0.8 for _ in range(3)]
    weights[0][..., 0] = weights[1][..., 0] = weights[2][..., 0] = 0
    image = torch.rand(1, 3, 6, 8, generator=generator, dtype=torch.float64).requires_grad_(True)
    before = torch.zeros_like(weights[0])
    total = torch.zeros((), dtype=torch.float64)
    for picture, weight in zip(pictures, weights, strict=True):
        total = total + ((weight - before).clamp(min=0) * (image - picture) ** 2).mean(dim=None) * 1.0
        before = before + weight
    total.backward()
    target, weight = combine(pictures, weights)
    gradient = torch.zeros_like(image)
    PixelTarget(target, weight, 1.0).add_gradient_(gradient, image.detach())
    torch.testing.assert_close(gradient, image.grad)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("static", 0.999, 1.0), ("grain", 0.3, 1.0), ("pan", 0.0, 0.01), ("zoom", 0.0, 0.2)]
)
def test_what_stands_still_is_found(name: str, least: float, most: float) -> None:
    film = FILMS[name](3, 120, 160)
    still = stillness(film.frames[2], film.frames[1], DisFlow()(film.frames[2], film.frames[1]))
    assert least <= still.mean() <= most


def test_a_slow_change_of_light_is_no_stillness() -> None:
    frame, none = torch.full((1, 3, 40, 40), 0.5), torch.zeros(1, 2, 40, 40)
    assert stillness(frame + 1.0 / 255, frame, none).max() < 0.01
    assert stillness(frame + 0.1 / 255, frame, none).min() > 0.99


def test_pixels_beside_motion_are_not_held() -> None:
    frame, flow = torch.rand(1, 3, 40, 40), torch.zeros(1, 2, 40, 40)
    flow[:, 0, 20, 20] = 2.0
    still = stillness(frame, frame, flow)[0, 0]
    near = consistency.NEAR
    assert still[20 - near : 21 + near, 20 - near : 21 + near].max() < 0.01
    assert still[0, 0] == 1
