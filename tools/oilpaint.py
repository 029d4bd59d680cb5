"""A small oil painter in NumPy: strokes with bristles that follow a flow, with lighting of the paint's relief.

Every length is in pixels of the finished picture, WIDTH by HEIGHT. Fields are float32 arrays (HEIGHT, WIDTH) or, for
flows, unit vectors (HEIGHT, WIDTH, 2) in x, y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array: TypeAlias = NDArray[Any]
Color: TypeAlias = Callable[[Array, Array], Array]  # points (n, 2) and tones (n,) -> RGB (n, 3), 0 to 1

WIDTH, HEIGHT = 768, 576
SUPER = 2  # strokes are drawn at twice the finished size and reduced, which smooths their borders
KNOTS = 15  # points of the line that a stroke follows
Y, X = (grid.astype(np.float32) for grid in np.mgrid[0:HEIGHT, 0:WIDTH])


# ---- fields ----------------------------------------------------------------------------------------------------------


def resized(values: Array, width: int, height: int) -> Array:
    image = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def standard(values: Array) -> Array:
    """`values` shifted and scaled to mean 0 and standard deviation 1."""
    result: Array = (values - values.mean()) / values.std()
    return result


def noise(rng: np.random.Generator, cell: float, octaves: int = 2) -> Array:
    """Smooth noise, mean 0 and standard deviation 1, whose largest features measure about `cell`."""
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    for octave in range(octaves):
        size = cell / 2**octave
        grid = rng.standard_normal((int(HEIGHT / size) + 3, int(WIDTH / size) + 3)).astype(np.float32)
        total += resized(grid, WIDTH, HEIGHT) / 2**octave
    return standard(total)


def at(field: Array, points: Array) -> Array:
    """Bilinear samples of `field` at `points` (..., 2) in x, y; the border is repeated."""
    x = np.clip(points[..., 0], 0, WIDTH - 1.001)
    y = np.clip(points[..., 1], 0, HEIGHT - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    shape = x.shape + (1,) * (field.ndim - 2)
    fx, fy = (x - left).reshape(shape), (y - top).reshape(shape)
    upper = field[top, left] * (1 - fx) + field[top, left + 1] * fx
    lower = field[top + 1, left] * (1 - fx) + field[top + 1, left + 1] * fx
    return (upper * (1 - fy) + lower * fy).astype(np.float32)


def directions(vx: Array, vy: Array) -> Array:
    """The flow of a vector field."""
    flow = np.stack(np.broadcast_arrays(vx, vy), -1) / (np.hypot(vx, vy) + 1e-6)[..., None]
    return flow.astype(np.float32)


def heading(flow: Array, points: Array) -> Array:
    """Unit vectors of a flow at `points` (n, 2): interpolation alone shortens them where the flow turns sharply."""
    vectors = at(flow, points)
    result: Array = vectors / (np.hypot(vectors[:, 0], vectors[:, 1]) + 1e-6)[:, None]
    return result


def trace(flow: Array, middles: Array, lengths: Array) -> Array:
    """Lines (n, KNOTS, 2) of the given lengths that follow `flow` both ways from their middles (midpoint rule)."""
    lines = np.empty((len(middles), KNOTS, 2), np.float32)
    half = KNOTS // 2
    lines[:, half] = middles
    for sign in (1, -1):
        point, step = middles, (sign * lengths / (KNOTS - 1))[:, None].astype(np.float32)
        for index in range(1, half + 1):
            point = point + step * heading(flow, point + step / 2 * heading(flow, point))
            lines[:, half + sign * index] = point
    return lines


def smeared(values: Array, flow: Array, length: float) -> Array:
    """`values` averaged along `flow`: bands of tone in the direction of the strokes."""
    points = np.stack([X, Y], -1).reshape(-1, 2)
    lines = trace(flow, points, np.full(len(points), length, np.float32))
    return standard(at(values, lines).mean(1).reshape(HEIGHT, WIDTH))


def rise(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    result: Array = t * t * (3 - 2 * t)
    return result


# ---- colors ---------------------------------------------------------------------------------------------------------


def palette(codes: str) -> Array:
    """Colors (n, 3) from hexadecimal codes, from shadow to light."""
    rows = [[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes.split()]
    return np.array(rows, np.float32)


def mixed(a: Array, b: Array, t: Array) -> Array:
    """`a` where t is 0, `b` where it is 1."""
    result: Array = (a + (b - a) * t[..., None]).astype(np.float32)
    return result


def ramp(colors: Array, t: Array) -> Array:
    """Colors along a palette, t from 0 (first) to 1 (last)."""
    position = np.clip(t, 0, 1) * (len(colors) - 1)
    index = np.minimum(position.astype(np.int32), len(colors) - 2)
    return mixed(colors[index], colors[index + 1], position - index)


def tints(colors: Array, middle: float, gain: float = 0.18) -> Color:
    """The color at `middle` of the palette for tone 0, and `gain` further along it for each unit of tone."""
    return lambda points, tones: ramp(colors, middle + gain * tones)


# ---- brush -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coat:
    """Strokes of one size: how often they cover the ground, and the contrast and scatter of their tones."""

    width: float
    length: float
    coverage: float
    color: Color
    contrast: float = 1.0
    scatter: float = 0.5


def coats(color: Color, width: float, length: float, fine: float = 1.5) -> tuple[Coat, ...]:
    """Coarse strokes that cover the ground, medium ones over them, and fine ones of stronger contrast on top."""
    return (
        Coat(width, length, 3, color, 0.8, 0.4),
        Coat(0.53 * width, 0.65 * length, 2.4, color),
        Coat(0.3 * width + 1.2, 0.4 * length, fine, color, 1.25, 0.65),
    )


@dataclass(frozen=True)
class Region:
    """A part of the scene: its mask, the flow of its strokes, its tone (standard deviation about 1) and its coats."""

    where: NDArray[np.bool_]
    flow: Array
    tone: Array
    coats: tuple[Coat, ...]
    spill: int = 0  # how many of their KNOTS strokes may leave the region by; 0 lets them start at either end


class Canvas:
    """Paint and its thickness, at SUPER times the finished size."""

    def __init__(self, rng: np.random.Generator, ground: Array) -> None:
        self.rng = rng
        self.paint = np.empty((HEIGHT * SUPER, WIDTH * SUPER, 3), np.float32)
        self.paint[:] = ground
        self.relief = np.zeros((HEIGHT * SUPER, WIDTH * SUPER), np.float32)
        self.bristles = [self._bristles() for _ in range(128)]

    def _bristles(self, length: int = 160, across: int = 48) -> Array:
        """(length, across, 2): streaks along the stroke, two columns each, and the slow drift of color."""
        streaks = resized(self.rng.random((5, across // 2), np.float32), across, length)
        drift = resized(self.rng.random((3, 6), np.float32), across, length)
        texture: Array = np.clip(np.stack([1.3 * streaks + 0.2 * drift - 0.25, drift], -1), 0, 1)
        return texture

    def stroke(self, line: Array, on: Array, width: float, first: Array, second: Array) -> None:
        """Draw a brush loaded with two colors along `line` (KNOTS, 2), where `on` (KNOTS,) is above 0."""
        length = float(np.hypot(*np.diff(line, axis=0).T).sum())
        along = np.linspace(0, 1, int(length * SUPER * 1.5) + 4, dtype=np.float32)
        across = np.linspace(-1, 1, int(width * SUPER * 1.6) + 3, dtype=np.float32)
        knots = np.linspace(0, 1, KNOTS)
        x, y, on = (np.interp(along, knots, v).astype(np.float32) for v in (line[:, 0], line[:, 1], on))
        tx, ty = np.gradient(x), np.gradient(y)
        half = width / 2 * np.sqrt(1 - np.abs(2 * along - 1) ** 3) * (1 - 0.25 * along)
        half = half / np.maximum(np.hypot(tx, ty), 1e-2)
        column = ((x[:, None] - (ty * half)[:, None] * across) * SUPER).astype(np.int32)
        row = ((y[:, None] + (tx * half)[:, None] * across) * SUPER).astype(np.int32)

        texture = self.bristles[self.rng.integers(len(self.bristles))]
        texture = texture[(along * (texture.shape[0] - 1)).astype(np.int32)]
        hairs = ((across + 1) / 2 * min(width, texture.shape[1] - 1)).astype(np.int32)  # a bristle every 2 pixels
        streaks = texture[:, hairs, 0]
        drift = texture[:, ((across + 1) / 2 * (texture.shape[1] - 1)).astype(np.int32), 1]
        border = np.clip((1 - np.abs(across)) * len(across) * 0.4, 0, 1)
        # Bristles do not all touch down at once, and run dry one by one over the second half.
        touch = np.clip(streaks * 3 + along[:, None] * 12, 0, 1)
        wet = np.clip((streaks - (along[:, None] - 0.5) * 1.3) * 5 + 1, 0, 1)
        alpha = border * touch * wet * on[:, None] * 0.95
        inside = (column >= 0) & (column < WIDTH * SUPER) & (row >= 0) & (row < HEIGHT * SUPER) & (alpha > 0.02)
        pixels = (row[inside], column[inside])
        alpha, streaks, drift = alpha[inside], streaks[inside], drift[inside]

        # Positions repeat within a stroke; assignment keeps the last one, so no pixel is painted twice.
        color = mixed(first, second, np.clip(drift * 1.6 + streaks * 0.9 - 0.75, 0, 1))
        color = color * (0.8 + 0.4 * streaks)[:, None]
        self.paint[pixels] += (color - self.paint[pixels]) * alpha[:, None]
        thickness = (0.2 + 0.8 * streaks) * min(width, 14) / 6
        self.relief[pixels] += (0.3 * self.relief[pixels] + thickness - self.relief[pixels]) * alpha

    def fill(self, region: Region) -> None:
        """Draw the coats of a region, the strokes of each in random order."""
        for index, coat in enumerate(region.coats):
            self._apply(region, coat, corners=index == 0)

    def _apply(self, region: Region, coat: Coat, corners: bool) -> None:
        rng = self.rng
        rows, columns = np.nonzero(region.where)
        number = int(coat.coverage * len(rows) / (coat.width * coat.length))
        chosen = rng.integers(len(rows), size=number)
        start = (np.stack([columns[chosen], rows[chosen]], -1) + rng.random((number, 2))).astype(np.float32)
        widths = coat.width * rng.lognormal(0, 0.22, number)
        lines = trace(region.flow, start, coat.length * rng.lognormal(0, 0.3, number).astype(np.float32))
        on = drawn(region, lines, corners)
        tones = at(region.tone, start) * coat.contrast + rng.normal(0, coat.scatter, number)
        first = coat.color(start, tones.astype(np.float32))
        second = coat.color(start, tones + rng.normal(0, 0.15 + coat.scatter / 2, number).astype(np.float32))
        backwards = (rng.random(number) < 0.5) & (region.spill == 0)
        for i in range(number):
            way = -1 if backwards[i] else 1
            self.stroke(lines[i][::way], on[i][::way], widths[i], first[i], second[i])

    def picture(self) -> Image.Image:
        """The painted surface, lit from the upper left, reduced to the finished size."""
        gy, gx = np.gradient(self.relief)
        incline = np.clip((gx + gy) * 0.7, -0.8, 0.8)[..., None]
        lit = self.paint * (1 + 0.6 * incline) + np.clip(incline - 0.1, 0, 1) * 0.35
        image = Image.fromarray((np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8))
        return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def drawn(region: Region, lines: Array, corners: bool) -> Array:
    """1 where a line (n, KNOTS, 2) is drawn: from its middle, both ways, until it leaves the region.

    It ends at a corner of the flow too, unless `corners`: the first coat must cover all of the ground.
    """
    on = (at(region.where.astype(np.float32), lines) > 0.5).astype(np.float32)
    for _ in range(region.spill):
        on[:, 1:] = np.maximum(on[:, 1:], on[:, :-1])
    if not corners:
        steps = np.diff(lines, axis=1)
        squares = np.maximum((steps[:, :1] ** 2).sum(-1), 1e-6)
        on[:, 1:-1] *= (steps[:, 1:] * steps[:, :-1]).sum(-1) > 0.7 * squares
    half = KNOTS // 2
    on[:, half:] = np.cumprod(on[:, half:], 1)
    on[:, half::-1] = np.cumprod(on[:, half::-1], 1)
    return on
