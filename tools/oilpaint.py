"""A small oil painter in NumPy: strokes with bristles, laid along a flow, whose thickness catches the light.

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
Colour: TypeAlias = Callable[[Array, Array], Array]  # points (n, 2) and tones (n,) -> RGB (n, 3), 0 to 1

WIDTH, HEIGHT = 768, 576
SUPER = 2  # strokes are laid down at twice the finished size and reduced, which smooths their edges
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
    """`values` averaged along `flow`: bands of tone that run the way the strokes run."""
    points = np.stack([X, Y], -1).reshape(-1, 2)
    lines = trace(flow, points, np.full(len(points), length, np.float32))
    return standard(at(values, lines).mean(1).reshape(HEIGHT, WIDTH))


def rise(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    result: Array = t * t * (3 - 2 * t)
    return result


# ---- colours ---------------------------------------------------------------------------------------------------------


def palette(codes: str) -> Array:
    """Colours (n, 3) from hexadecimal codes, from shadow to light."""
    rows = [[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes.split()]
    return np.array(rows, np.float32)


def mixed(a: Array, b: Array, t: Array) -> Array:
    """`a` where t is 0, `b` where it is 1."""
    result: Array = (a + (b - a) * t[..., None]).astype(np.float32)
    return result


def ramp(colours: Array, t: Array) -> Array:
    """Colours along a palette, t from 0 (first) to 1 (last)."""
    position = np.clip(t, 0, 1) * (len(colours) - 1)
    index = np.minimum(position.astype(np.int32), len(colours) - 2)
    return mixed(colours[index], colours[index + 1], position - index)


def tints(colours: Array, middle: float, gain: float = 0.18) -> Colour:
    """Tone 0 takes the colour at `middle` of the palette; each unit of tone moves by `gain`."""
    return lambda points, tones: ramp(colours, middle + gain * tones)


# ---- brush -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coat:
    """Strokes of one size: how often they cover the ground, how far their tones are pushed and scattered."""

    width: float
    length: float
    coverage: float
    colour: Colour
    contrast: float = 1.0
    scatter: float = 0.5


def coats(colour: Colour, width: float, length: float, fine: float = 1.5) -> tuple[Coat, ...]:
    """Coarse strokes that close the ground, middling ones over them, and fine ones of stronger contrast on top."""
    return (
        Coat(width, length, 3, colour, 0.8, 0.4),
        Coat(0.53 * width, 0.65 * length, 2.4, colour),
        Coat(0.3 * width + 1.2, 0.4 * length, fine, colour, 1.25, 0.65),
    )


@dataclass(frozen=True)
class Region:
    """A part of the scene: where it is, which way its strokes run, its tone (standard deviation about 1), its coats."""

    where: NDArray[np.bool_]
    flow: Array
    tone: Array
    coats: tuple[Coat, ...]
    spill: int = 0  # strokes may leave the region by so many of their KNOTS; 0 lets them start at either end


class Canvas:
    """Paint and its thickness, at SUPER times the finished size."""

    def __init__(self, rng: np.random.Generator, ground: Array) -> None:
        self.rng = rng
        self.paint = np.empty((HEIGHT * SUPER, WIDTH * SUPER, 3), np.float32)
        self.paint[:] = ground
        self.relief = np.zeros((HEIGHT * SUPER, WIDTH * SUPER), np.float32)
        self.bristles = [self._bristles() for _ in range(128)]

    def _bristles(self, length: int = 160, across: int = 48) -> Array:
        """(length, across, 2): streaks along the stroke, two columns each, and the slow drift of colour."""
        streaks = resized(self.rng.random((5, across // 2), np.float32), across, length)
        drift = resized(self.rng.random((3, 6), np.float32), across, length)
        texture: Array = np.clip(np.stack([1.3 * streaks + 0.2 * drift - 0.25, drift], -1), 0, 1)
        return texture

    def stroke(self, line: Array, on: Array, width: float, first: Array, second: Array) -> None:
        """Draw a brush loaded with two colours along `line` (KNOTS, 2), where `on` (KNOTS,) is above 0."""
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
        edge = np.clip((1 - np.abs(across)) * len(across) * 0.4, 0, 1)
        # Bristles do not all touch down at once, and run dry one by one over the second half.
        touch = np.clip(streaks * 3 + along[:, None] * 12, 0, 1)
        wet = np.clip((streaks - (along[:, None] - 0.5) * 1.3) * 5 + 1, 0, 1)
        alpha = edge * touch * wet * on[:, None] * 0.95
        seen = (column >= 0) & (column < WIDTH * SUPER) & (row >= 0) & (row < HEIGHT * SUPER) & (alpha > 0.02)
        place = (row[seen], column[seen])
        alpha, streaks, drift = alpha[seen], streaks[seen], drift[seen]

        # Positions repeat within a stroke; assignment keeps the last one, so no pixel is painted twice.
        colour = mixed(first, second, np.clip(drift * 1.6 + streaks * 0.9 - 0.75, 0, 1))
        colour = colour * (0.8 + 0.4 * streaks)[:, None]
        self.paint[place] += (colour - self.paint[place]) * alpha[:, None]
        thickness = (0.2 + 0.8 * streaks) * min(width, 14) / 6
        self.relief[place] += (0.3 * self.relief[place] + thickness - self.relief[place]) * alpha

    def fill(self, region: Region) -> None:
        """Lay down the coats of a region, the strokes of each in random order."""
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
        first = coat.colour(start, tones.astype(np.float32))
        second = coat.colour(start, tones + rng.normal(0, 0.15 + coat.scatter / 2, number).astype(np.float32))
        backwards = (rng.random(number) < 0.5) & (region.spill == 0)
        for i in range(number):
            way = -1 if backwards[i] else 1
            self.stroke(lines[i][::way], on[i][::way], widths[i], first[i], second[i])

    def picture(self) -> Image.Image:
        """The painted surface, lit from the upper left, reduced to the finished size."""
        gy, gx = np.gradient(self.relief)
        slope = np.clip((gx + gy) * 0.7, -0.8, 0.8)[..., None]
        lit = self.paint * (1 + 0.6 * slope) + np.clip(slope - 0.1, 0, 1) * 0.35
        image = Image.fromarray((np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8))
        return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def drawn(region: Region, lines: Array, corners: bool) -> Array:
    """1 where a line (n, KNOTS, 2) is drawn: it ends, either way from its middle, where it leaves the region.

    It ends at a corner of the flow too, unless `corners`: the first coat leaves no ground bare.
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
