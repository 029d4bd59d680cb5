"""Encoders of image files: Pillow for 8 bits per channel, and strip by strip 16-bit PNG and TIFF."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from fastnst.errors import ImageError
from fastnst.images.color import srgb_profile
from fastnst.images.metadata import KEY, PREFIX

_STRIP_ROWS = 64
_MAX_TIFF_BYTES = 2**32 - 2**25
"""Bytes of samples that fit a classic TIFF, which has 32-bit offsets, even if deflate enlarges noise a little."""


@dataclass(frozen=True)
class LevelStrips:
    """Iterates over an image in strips of integers [rows, W, bands]; with ``flatten``, blended onto white."""

    rgb: Tensor
    opacity: Tensor | None
    bits: int
    flatten: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.rgb.shape[1:], 3 if self.opacity is None or self.flatten else 4)

    def __iter__(self) -> Iterator[NDArray[np.unsignedinteger]]:
        for top in range(0, self.rgb.shape[1], _STRIP_ROWS):
            values = _clamp("pixels", self.rgb[:, top : top + _STRIP_ROWS])
            if self.opacity is not None:
                coverage = _clamp("alpha", self.opacity[:, top : top + _STRIP_ROWS])
                values = (
                    values * coverage + (1 - coverage) if self.flatten else np.concatenate([values, coverage], axis=2)
                )
            yield _quantize(values, self.bits)


def _clamp(name: str, planes: Tensor) -> NDArray[np.float32]:
    """Return [rows, W, channels] clamped to 0..1."""
    values: NDArray[np.float32] = planes.to("cpu").float().permute(1, 2, 0).numpy()
    if not np.isfinite(values).all():
        raise ImageError(f"save: {name} contains values that are not finite (NaN or infinite); expected 0..1")
    return values.clip(0, 1)


def _quantize(values: NDArray[np.float32], bits: int) -> NDArray[np.unsignedinteger]:
    """Quantize 0..1 to integers, rounded to nearest."""
    rounded: NDArray[np.float32] = values * np.float32(2**bits - 1) + np.float32(0.5)
    return rounded.astype(np.uint16) if bits == 16 else rounded.astype(np.uint8)


def encode(kind: str, levels: NDArray[np.unsignedinteger], text: str | None, quality: int) -> bytes:
    """Encode 8 bits per channel with Pillow, in memory, because Pillow loses the reason of a failed write."""
    description = None if text is None else PREFIX + text
    exif = Image.Exif()
    if description is not None:
        exif[ExifTags.Base.ImageDescription] = description
    # From 90 on without chroma subsampling, which is visible at the borders of brush strokes.
    fine = quality >= 90
    options: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": _png_text(text)},
        "JPEG": {"exif": exif, "quality": quality, "subsampling": 0 if fine else 2},
        "WEBP": {"exif": exif, "quality": quality, "lossless": quality == 100, "exact": True},
        "AVIF": {"exif": exif, "quality": quality, "subsampling": "4:4:4" if fine else "4:2:0"},
        "JPEG2000": {"comment": description or "", "no_jp2": False},
        "BMP": {},
    }
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind, icc_profile=srgb_profile(), **options[kind])
    return buffer.getvalue()


def _png_text(text: str | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt(KEY, text)
    return info


def write_png_16(stream: BinaryIO, strips: LevelStrips, text: str | None) -> None:
    """Write 16-bit PNG (PNG specification, third edition, section 11), which Pillow does for gray only."""
    height, width, bands = strips.shape
    stream.write(b"\x89PNG\r\n\x1a\n")
    header = struct.pack(">2I5B", width, height, 16, {3: 2, 4: 6}[bands], 0, 0, 0)
    PngImagePlugin.putchunk(stream, b"IHDR", header)
    PngImagePlugin.putchunk(stream, b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))
    for name, data, _ in _png_text(text).chunks:
        PngImagePlugin.putchunk(stream, name, data)
    packer = zlib.compressobj(6)
    above = np.zeros((1, width * bands * 2), np.uint8)
    for levels in strips:
        rows = np.ascontiguousarray(levels, ">u2").view(np.uint8).reshape(len(levels), -1)
        # Each row is stored as its difference from the one above: filter 2, "Up".
        filtered = np.full((len(rows), 1 + rows.shape[1]), 2, np.uint8)
        np.subtract(rows, np.concatenate([above, rows[:-1]]), out=filtered[:, 1:])
        above = rows[-1:]
        PngImagePlugin.putchunk(stream, b"IDAT", packer.compress(filtered.tobytes()))
    PngImagePlugin.putchunk(stream, b"IDAT", packer.flush())
    PngImagePlugin.putchunk(stream, b"IEND", b"")


def write_tiff(stream: BinaryIO, strips: LevelStrips, text: str | None) -> None:
    """Write TIFF, or BigTIFF above 4 GB of samples, in strips with horizontal differencing and deflate.

    Differences (TIFF 6.0, section 14) are computed here, because tifffile computes them of whole images only.
    """
    from tifffile import TiffWriter

    height, width, bands = strips.shape
    samples = height * width * bands * strips.bits // 8
    with TiffWriter(stream, bigtiff=samples > _MAX_TIFF_BYTES, byteorder="<") as writer:
        writer.write(
            (_compress(levels) for levels in strips),
            shape=strips.shape,
            dtype=f"<u{strips.bits // 8}",
            photometric="rgb",
            planarconfig="contig",
            extrasamples=["unassalpha"] if bands == 4 else None,
            rowsperstrip=min(_STRIP_ROWS, height),
            compression="adobe_deflate",
            predictor=True,
            iccprofile=srgb_profile(),
            description=None if text is None else PREFIX + text,
            metadata=None,
            software=False,
        )


def _compress(levels: NDArray[np.unsignedinteger]) -> bytes:
    differences = levels.astype(levels.dtype.newbyteorder("<"))
    differences[:, 1:] -= levels[:, :-1]
    return zlib.compress(differences.tobytes(), 6)
