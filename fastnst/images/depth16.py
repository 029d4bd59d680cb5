"""Color of 16 bits per channel from Pillow, whose color images have 8.

Pillow's unpackers for 16-bit RGB keep the upper byte of each sample. Such files are decoded twice, the second time with
the other byte order, which yields the lower bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from fastnst.errors import ImageError
from fastnst.images import color
from fastnst.images.formats import load_pixels, make_upright

_TIFF_BITS, _TIFF_PLANAR = 258, 284


class Decoded(NamedTuple):
    """Color [H, W, 3], uint8 or float32 in 0..1, and alpha [H, W], float32 in 0..1, or None."""

    rgb: NDArray[np.uint8] | NDArray[np.float32]
    alpha: NDArray[np.float32] | None


class RawModes(NamedTuple):
    """How Pillow decodes a file of 16-bit color.

    Attributes:
        upper: the raw mode that yields the upper byte of each sample.
        lower: the raw mode that yields the lower byte; None if ``upper`` yields both.
        premultiplied: whether color is multiplied by alpha.
    """

    upper: str
    lower: str | None
    premultiplied: bool


def find_raw_modes(image: ImageFile.ImageFile, path: Path) -> RawModes | None:
    """Return the raw modes of a 16-bit color file; None for every other file."""
    rawmodes = {tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0]) for tile in image.tile}
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_PLANAR) == 2:
        if len(image.tile) > 1 and 16 in tags.get(_TIFF_BITS, ()):
            # Pillow would decode such strips as 8-bit samples and return noise.
            raise ImageError(f"{path}: is a planar TIFF of 16-bit channels; expected interleaved channels")
        return None
    if len(rawmodes) != 1:
        return None
    bands, _, order = rawmodes.pop().partition(";16")
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    if bands == "LA" and order == "B":
        return RawModes("RGBA", None, False)  # four bytes per pixel, copied unchanged
    if bands not in ("RGB", "RGBA", "RGBX", "RGBa") or order not in ("B", "L"):
        return None
    other = "L" if order == "B" else "B"
    unpacked = "RGBA" if bands == "RGBa" else bands
    return RawModes(f"{unpacked};16{order}", f"{unpacked};16{other}", bands == "RGBa")


def read_samples(
    image: ImageFile.ImageFile, modes: RawModes, reopen: Callable[[], ImageFile.ImageFile]
) -> NDArray[np.uint16]:
    """Decode 16-bit samples [H, W, bands]; ``reopen`` identifies the same file again for the second pass."""
    upper = _decode_with_mode(image, modes.upper)
    if modes.lower is None:
        return upper.view(">u2").astype(np.uint16)
    samples: NDArray[np.uint16] = upper.astype(np.uint16) * np.uint16(256)
    samples += _decode_with_mode(reopen(), modes.lower)
    return samples


def _decode_with_mode(image: ImageFile.ImageFile, rawmode: str) -> NDArray[np.uint8]:
    """Decode with a raw mode that replaces the file's own; upright, [H, W, bands]."""
    image.tile = [
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *(tile.args or ())[1:]))
        for tile in image.tile
    ]
    load_pixels(image)
    make_upright(image)
    return np.asarray(image)


def check_16_bits(values: NDArray[np.generic], name: str) -> NDArray[np.uint16]:
    """Convert integers of any dtype to uint16. Raises ImageError for values that do not fit."""
    if values.dtype != np.uint16 and (values.min() < 0 or values.max() > 65535):
        raise ImageError(f"{name}: contains integers from {values.min()} to {values.max()}; expected at most 16 bits")
    return values.astype(np.uint16)


def decode_16(samples: NDArray[np.uint16], profile: bytes | None, key: object, *, premultiplied: bool) -> Decoded:
    """Return color and alpha of ``samples`` [H, W, 1 to 4]; ``key`` is the transparent color of a PNG, if any."""
    bands = samples.shape[2]
    colors = samples[..., : bands - 1 if bands in (2, 4) else bands]
    alpha = None
    if bands in (2, 4):
        alpha = samples[..., -1].astype(np.float32) / np.float32(65535)
    elif isinstance(key, (tuple, int)):
        alpha = (samples != np.array(key)).any(axis=2).astype(np.float32)
    if premultiplied and alpha is not None:
        straight = colors / np.maximum(alpha, np.float32(1 / 65535))[..., None]
        colors = (straight + 0.5).clip(0, 65535).astype(np.uint16)
    return Decoded(color.to_srgb_16(colors, profile), alpha)
