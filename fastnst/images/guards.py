"""Limits on images that are read: size, proportions, range of values, and the number of scans of a JPEG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastnst.errors import ImageError

_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""A marker that is not entropy-coded data, where 0xff precedes 0 or a restart (ITU-T T.81, B.1.1)."""
_START_OF_SCAN, _END_OF_IMAGE, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
_MAX_SCANS = 100
"""The limit of libtiff for the JPEG in a TIFF; encoders write about ten."""
_MAX_ASPECT = 1000
"""Longest side over shortest: at a size of 1000 pixels such an image is one pixel wide."""


def check_size(name: str, width: int, height: int, max_pixels: int | None) -> None:
    """Reject images below 2 x 2 pixels, of extreme proportions, or above ``max_pixels`` (None: Pillow's)."""
    check_limit(name, width, height, max_pixels)
    if min(width, height) < 2:
        raise ImageError(f"{name}: is {width} x {height} pixels; expected at least 2 x 2")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{name}: is {width} x {height} pixels; expected one side to be at most {_MAX_ASPECT} times the other, "
            "crop it"
        )


def check_limit(name: str, width: int, height: int, max_pixels: int | None) -> None:
    """Reject images above ``max_pixels`` (None: Pillow's limit)."""
    limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{name}: {width} x {height} is {width * height} pixels, above the limit of {limit}; "
            "raise max_pixels (--max-pixels) if the file can be trusted"
        )


def check_range(values: NDArray[np.float32], name: str) -> None:
    """Reject values that are not finite or are outside 0..1 by more than rounding."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        raise ImageError(f"{name}: contains values that are not finite (NaN or infinite); expected 0..1")
    if low < -1e-3 or high > 1 + 1e-3:
        levels = "; divide levels of 0..255 by 255, or convert them to uint8" if low >= 0 and 1 < high <= 255 else ""
        raise ImageError(f"{name}: contains values from {low:g} to {high:g}; expected floats in 0..1{levels}")


def check_jpeg_scans(stream: BinaryIO, path: Path) -> None:
    """Reject a JPEG with too many scans: each covers the whole image, so a small file could take minutes."""
    stream.seek(0)
    data = stream.read()
    position = scans = 0
    while (found := _JPEG_MARKER.search(data, position)) is not None and (marker := found[0][-1]) != _END_OF_IMAGE:
        scans += marker == _START_OF_SCAN
        if scans > _MAX_SCANS:
            raise ImageError(f"{path}: is a JPEG of more than {_MAX_SCANS} scans; expected about ten; save it again")
        length = 0 if marker in _WITHOUT_LENGTH else int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + length
    stream.seek(0)


def one_line(error: Exception) -> str:
    """Return the message of an exception on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
