"""Reading TIFF and BigTIFF by strips or tiles, one segment at a time, without a second copy of the image.

Pillow parses the directory; only the segments are read here. Tags and layout: TIFF 6.0, sections 8, 14 (differences)
and 15 (tiles). Supported are gray and RGB with or without alpha, 8 or 16 bits, interleaved or planar, uncompressed or
deflated. Pillow reads everything else (LZW, JPEG, palettes, CMYK, YCbCr, ...).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from fastnst.errors import ImageError

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 317, 322, 323, 324, 325
_EXTRA, _FORMAT, _PROFILE = 338, 339, 34675
_DEFLATE = (8, 32946)
_JOINED = 1 << 18
"""Strips and tiles are joined up to this number of bytes of samples."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2


class Segment(NamedTuple):
    """Samples [h, w, bands], uint8 or uint16, whose first is at row ``top`` and column ``left`` as stored."""

    top: int
    left: int
    samples: NDArray[Any]


@dataclass(frozen=True)
class TiffLayout:
    """How the samples of a TIFF are stored.

    ``extra`` is the kind of the band after the colors, None without one: 0 for unspecified data, which is ignored, 1
    for alpha with premultiplied colors, 2 for alpha with straight colors.
    """

    width: int
    height: int
    bands: int
    dtype: np.dtype[Any]
    rows: int
    columns: int
    tiled: bool
    planar: bool
    inverted: bool
    compressed: bool
    differences: bool
    extra: int | None
    orientation: int
    profile: bytes | None
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    def upright(self, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return empty planes [channels, H, W] in upright orientation, and a view of them in the file's orientation."""
        transposed = self.orientation >= 5
        shape = (self.width, self.height) if transposed else (self.height, self.width)
        planes = np.empty((channels, *shape), np.float32)
        stored = planes.transpose(0, 2, 1) if transposed else planes
        if self.orientation in (3, 4, 6, 7):
            stored = stored[:, ::-1]
        if self.orientation in (2, 3, 7, 8):
            stored = stored[:, :, ::-1]
        return planes, stored


def find_layout(image: ImageFile.ImageFile) -> TiffLayout | None:
    """Return the layout of an image that is supported here, else None. Nothing is allocated for the pixels."""
    tags: Mapping[int, Any] | None = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    bands = _integer(tags, _SAMPLES, 1)
    bits = {*_numbers(tags, _BITS, (1,))}
    photometric = tags.get(_PHOTOMETRIC)
    colors = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3}.get(photometric, 0) if photometric is not None else 0
    extra = _numbers(tags, _EXTRA, (0,) * max(0, bands - colors))
    compression, predictor = _integer(tags, _COMPRESSION, 1), _integer(tags, _PREDICTOR, 1)
    if (
        bits not in ({8}, {16})
        or colors == 0
        or bands - colors not in (0, 1)
        or len(extra) != bands - colors
        or {*_numbers(tags, _FORMAT, (1,))} != {1}
        or compression not in (1, *_DEFLATE)
        or predictor not in (1, 2)
        or _integer(tags, _FILL_ORDER, 1) != 1
    ):
        return None
    tiled = _TILE_OFFSETS in tags
    if (_TILE_BYTES if tiled else _STRIP_BYTES) not in tags:  # some old writers omit the length of a single strip
        return None
    width, height = _integer(tags, _WIDTH, 0), _integer(tags, _LENGTH, 0)
    order = "<" if getattr(tags, "prefix", b"II") == b"II" else ">"
    profile, orientation = tags.get(_PROFILE), _integer(tags, _ORIENTATION, 1)
    return TiffLayout(
        width=width,
        height=height,
        bands=bands,
        dtype=np.dtype("u1" if bits == {8} else f"{order}u2"),
        rows=_integer(tags, _TILE_LENGTH, 0) if tiled else min(_integer(tags, _STRIP_ROWS, height), height),
        columns=_integer(tags, _TILE_WIDTH, 0) if tiled else width,
        tiled=tiled,
        planar=bands > 1 and _integer(tags, _PLANAR, 1) == 2,
        inverted=photometric == _WHITE_IS_ZERO,
        compressed=compression != 1,
        differences=predictor == 2 and compression != 1,
        extra=extra[0] if extra else None,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        profile=profile if isinstance(profile, bytes) else None,
        offsets=_numbers(tags, _TILE_OFFSETS if tiled else _STRIP_OFFSETS, ()),
        lengths=_numbers(tags, _TILE_BYTES if tiled else _STRIP_BYTES, ()),
    )


def check_layout(stored: TiffLayout, stream: BinaryIO, path: Path) -> None:
    """Compare the directory with the file's size before any allocation. Raises ImageError."""
    if stored.rows < 1 or stored.columns < 1:
        raise ImageError(f"{path}: its strips or tiles are {stored.columns} x {stored.rows}; expected at least 1 x 1")
    if stored.tiled and stored.rows * stored.columns > max(4 * stored.width * stored.height, 1 << 20):
        raise ImageError(
            f"{path}: has tiles of {stored.columns} x {stored.rows} in a picture of {stored.width} x {stored.height}; "
            "expected smaller ones"
        )
    down, across = -(-stored.height // stored.rows), -(-stored.width // stored.columns)
    expected = down * across * (stored.bands if stored.planar else 1)
    if len(stored.offsets) != expected or len(stored.lengths) != expected:
        raise ImageError(
            f"{path}: names {len(stored.offsets)} strips or tiles and {len(stored.lengths)} lengths, but its size "
            f"takes {expected}; expected a whole image file"
        )
    size = stream.seek(0, 2)
    held = sum(
        1
        for start, length in zip(stored.offsets, stored.lengths, strict=True)
        if start and length and start + length <= size
    )
    if held < expected:
        raise ImageError(
            f"{path}: is truncated: contains {held} of its {expected} strips or tiles; expected a whole image file"
        )


def read_segments(stored: TiffLayout, stream: BinaryIO, path: Path) -> Iterator[Segment]:
    """Yield the samples of a layout that passed :func:`check_layout`, from top to bottom.

    Small strips and tiles are joined, because converting them costs the same for one row as for many. Raises ImageError
    for damaged ones.
    """
    across, down = -(-stored.width // stored.columns), -(-stored.height // stored.rows)
    many = max(1, _JOINED // (stored.rows * stored.columns * stored.bands * stored.dtype.itemsize))
    lines = many if across == 1 else 1
    for top in range(0, down, lines):
        for left in range(0, across, many):
            block = [
                _join([_segment(stored, stream, path, y, x) for x in range(left, min(left + many, across))], 1)
                for y in range(top, min(top + lines, down))
            ]
            yield Segment(top * stored.rows, left * stored.columns, _join(block, 0))


def _join(parts: list[NDArray[Any]], axis: int) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def _segment(stored: TiffLayout, stream: BinaryIO, path: Path, y: int, x: int) -> NDArray[Any]:
    """Read strip or tile ``x`` of row ``y``, cropped to the image."""
    across, down = -(-stored.width // stored.columns), -(-stored.height // stored.rows)
    index, top, left = y * across + x, y * stored.rows, x * stored.columns
    # Tiles at the border are stored in full; the last strip is not.
    rows = stored.rows if stored.tiled else min(stored.rows, stored.height - top)
    if stored.planar:
        planes = [_samples(stored, stream, path, index + band * down * across, rows, 1) for band in range(stored.bands)]
        samples = np.concatenate(planes, axis=2)
    else:
        samples = _samples(stored, stream, path, index, rows, stored.bands)
    samples = samples[: stored.height - top, : stored.width - left]
    if stored.inverted:
        samples = samples.copy()
        samples[..., 0] = ~samples[..., 0]
    return samples


def _samples(stored: TiffLayout, stream: BinaryIO, path: Path, index: int, rows: int, bands: int) -> NDArray[Any]:
    size = rows * stored.columns * bands * stored.dtype.itemsize
    stream.seek(stored.offsets[index])
    if stored.compressed:
        # Bounded by the segment's size, because a small file could decompress to a thousand times that.
        data = zlib.decompressobj().decompress(stream.read(stored.lengths[index]), size)
    else:
        data = stream.read(min(size, stored.lengths[index]))
    if len(data) < size:
        raise ImageError(
            f"{path}: its strip or tile {index + 1} holds {len(data)} of {size} bytes; expected a whole image file"
        )
    samples = np.frombuffer(data, stored.dtype).reshape(rows, stored.columns, bands)
    native = samples.astype(stored.dtype.newbyteorder("="), copy=False)
    return np.cumsum(native, axis=1, dtype=native.dtype) if stored.differences else native


def _numbers(tags: Mapping[int, Any], tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(number, int) for number in values):
        raise ValueError(f"TIFF tag {tag} holds no whole numbers")
    return values


def _integer(tags: Mapping[int, Any], tag: int, default: int) -> int:
    values = _numbers(tags, tag, (default,))
    return values[0] if values else default
