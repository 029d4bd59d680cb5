"""Films with known motion, made from the photograph that comes with the package."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import images
from fastnst.files import ASSETS
from fastnst.film.flow import positions

PAN = (2.5, 1.25)  # pixels a frame
ZOOM = 1.01  # a frame
SQUARE = 3.0  # pixels a frame
NOISE = 1.0  # standard deviation of the noise of "grain", of 255


@dataclass(frozen=True)
class KnownFilm:
    """A film whose motion is known.

    Attributes:
        frames: each ``[1, 3, H, W]`` in 0..1.
        flows: from each frame but the first to the one before.
        weights: 0 where a pixel was not visible before.
    """

    frames: list[Tensor]
    flows: list[Tensor]
    weights: list[Tensor]


def pan(count: int, height: int, width: int) -> KnownFilm:
    """The picture moves past the camera."""
    return _moving(count, height, width, lambda i, x, y: (x + PAN[0] * i, y + PAN[1] * i))


def zoom(count: int, height: int, width: int) -> KnownFilm:
    """The camera approaches the picture."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return _moving(count, height, width, lambda i, x, y: ((x - cx) / ZOOM**i + cx + 40, (y - cy) / ZOOM**i + cy + 40))


def square(count: int, height: int, width: int) -> KnownFilm:
    """A square with the texture of the painting passes in front of the picture, which stands still."""
    back = _still(height, width)
    side = height // 3
    texture = images.load(ASSETS / "demo_painting.jpg", crop=side).pixels
    top, frames, masks = height // 3, [], []
    for i in range(count):
        left = round(width / 8 + SQUARE * i)
        frame, mask = back.clone(), torch.zeros(1, 1, height, width)
        frame[:, :, top : top + side, left : left + side] = texture[..., : width - left]
        mask[:, :, top : top + side, left : left + side] = 1
        frames.append(frame)
        masks.append(mask)
    flows, weights = [], []
    for before, mask in itertools.pairwise(masks):
        flow = torch.zeros(1, 2, height, width)
        flow[:, :1] = -SQUARE * mask
        flows.append(flow)
        weights.append(1 - (before - mask).clamp(min=0))  # what the square has just left
    return KnownFilm(frames, flows, weights)


def static(count: int, height: int, width: int) -> KnownFilm:
    """Nothing moves."""
    return _unmoved([_still(height, width)] * count)


def grain(count: int, height: int, width: int) -> KnownFilm:
    """Nothing moves, and the camera adds noise."""
    generator, still = torch.Generator().manual_seed(0), _still(height, width)
    noisy = [still + NOISE / 255 * torch.randn(still.shape, generator=generator) for _ in range(count)]
    return _unmoved([((frame * 255).round() / 255).clamp(0, 1) for frame in noisy])


FILMS: dict[str, Callable[[int, int, int], KnownFilm]] = {
    "pan": pan,
    "zoom": zoom,
    "square": square,
    "static": static,
    "grain": grain,
}


def _still(height: int, width: int) -> Tensor:
    return images.load(ASSETS / "demo_photo.jpg", crop=(height, width)).pixels


def _unmoved(frames: list[Tensor]) -> KnownFilm:
    height, width = frames[0].shape[-2:]
    count = len(frames) - 1
    return KnownFilm(frames, [torch.zeros(1, 2, height, width)] * count, [torch.ones(1, 1, height, width)] * count)


def _moving(
    count: int, height: int, width: int, place: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
) -> KnownFilm:
    """A film of a plane: ``place(i, x, y)`` is where the pixel (x, y) of frame i lies in the picture. It is linear."""
    reach = max(math.ceil(max(PAN) * count), 80)
    picture = images.load(ASSETS / "demo_photo.jpg", crop=(height + reach, width + reach)).pixels
    x, y = positions(torch.zeros(1, 2, height, width))
    frames, flows, weights = [], [], []
    for i in range(count):
        px, py = place(i, x, y)
        grid = torch.stack((px * 2 / (width + reach - 1) - 1, py * 2 / (height + reach - 1) - 1), -1)[None]
        frames.append(F.grid_sample(picture, grid, mode="bicubic", align_corners=True).clamp(0, 1))
        if i:
            flow = _to_frame_before(place, i, px, py) - torch.stack((x, y))[None]
            moved_x, moved_y = positions(flow)
            inside = (moved_x >= 0) & (moved_x <= width - 1) & (moved_y >= 0) & (moved_y <= height - 1)
            flows.append(flow)
            weights.append(inside.float()[None, None])
    return KnownFilm(frames, flows, weights)


def _to_frame_before(
    place: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]], i: int, px: Tensor, py: Tensor
) -> Tensor:
    """Where points of the picture lie in frame i - 1: the inverse of a linear map, each axis by itself."""
    zero, one = torch.zeros(1), torch.ones(1)
    (x0, y0), (x1, y1) = place(i - 1, zero, zero), place(i - 1, one, one)
    return torch.stack(((px - x0) / (x1 - x0), (py - y0) / (y1 - y0)))[None]
