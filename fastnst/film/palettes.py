"""256 colors for the frames of a GIF, chosen so that what does not move does not flicker.

A palette is kept for as long as it fits the frames nearly as well as the frame it was made for, so a still region
keeps its colors, and a cut gets a palette of its own. Dithering adds a pattern that is fixed in the picture. It does
not pass errors on to neighbors, where a change in one corner would change the whole frame. The pattern is the
interleaved gradient noise of Jimenez ("Next generation post processing in Call of Duty: Advanced Warfare", SIGGRAPH
2014).
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TRANSPARENT = 255
"""The index of transparent pixels in frames with alpha."""
_BITS = 5  # per channel, of the table from colors to indices
_WORSE = 1.25  # by which the error of a palette may grow before a new one is made
_LEAST = 2.0  # an error, in levels, that needs no better palette
_STRENGTH = 0.6  # of the dither, relative to the distance of colors
_SAMPLE = 64 * 64  # pixels that a palette is made from; more take longer and change little


class Palettes:
    """Chooses palettes for the frames of one film in their order.

    Args:
        alpha: whether one index is kept for transparent pixels.
    """

    def __init__(self, alpha: bool) -> None:
        self._colors = 255 if alpha else 256
        self._table: NDArray[np.uint8] | None = None
        self._palette: NDArray[np.uint8] = np.zeros((0, 3), np.uint8)
        self._error = 0.0

    def apply(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], bool]:
        """The indices of a frame ``[H, W, 3]``, the palette ``[256, 3]``, and whether the palette is a new one."""
        new = self._table is None or self._distance(rgb) > max(self._error * _WORSE, _LEAST)
        if new:
            self._make(rgb)
            self._error = self._distance(rgb)
        assert self._table is not None
        height, width = rgb.shape[:2]
        spread = min(2.0 * _STRENGTH * self._error, 24.0)
        shifted = rgb + (_noise(height, width)[..., None] - 0.5) * np.float32(spread)
        return self._indices(shifted.clip(0, 255).astype(np.uint8)), self._palette, new

    def _make(self, rgb: NDArray[np.uint8]) -> None:
        image = Image.fromarray(_thin(rgb)).quantize(self._colors, Image.Quantize.MEDIANCUT, kmeans=1)
        found = np.array(image.getpalette(), np.uint8).reshape(-1, 3)[: self._colors]
        self._palette = np.zeros((256, 3), np.uint8)
        self._palette[: len(found)] = found
        colors = Image.new("P", (1, 1))
        colors.putpalette(self._palette[: self._colors].tobytes())
        self._table = np.asarray(_cells().quantize(palette=colors, dither=Image.Dither.NONE)).reshape(-1)

    def _indices(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert self._table is not None
        cells = (rgb >> (8 - _BITS)).astype(np.uint16)
        found: NDArray[np.uint8] = self._table[(cells[..., 0] << 2 * _BITS) | (cells[..., 1] << _BITS) | cells[..., 2]]
        return found

    def _distance(self, rgb: NDArray[np.uint8]) -> float:
        """The mean error of the palette without dithering, in levels of a channel."""
        sample = _thin(rgb)
        return float(np.abs(self._palette[self._indices(sample)].astype(np.int16) - sample).mean())


def _thin(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every n-th row and column."""
    step = max(1, math.ceil((rgb.shape[0] * rgb.shape[1] / _SAMPLE) ** 0.5))
    return np.ascontiguousarray(rgb[::step, ::step])


@cache
def _cells() -> Image.Image:
    """The middle of each cell of the table."""
    steps = ((np.arange(1 << _BITS) + 0.5) * (256 >> _BITS)).astype(np.uint8)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    return Image.fromarray(cells.reshape(1 << 2 * _BITS - 2, 4 << _BITS, 3))


@lru_cache(maxsize=1)
def _noise(height: int, width: int) -> NDArray[np.float32]:
    """A pattern in 0..1."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    pattern: NDArray[np.float32] = ((52.9829189 * ((0.06711056 * x + 0.00583715 * y) % 1)) % 1).astype(np.float32)
    return pattern
