"""``save``: a tensor to PNG, JPEG, WebP or TIFF, with its colour profile and settings, whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin
from torch import Tensor

from fastnst.errors import ImageError, UsageError, nearest
from fastnst.files import replacing
from fastnst.images.colour import srgb_profile
from fastnst.images.settings import KEY, MARK, to_json

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_BITS = {"PNG": (8, 16), "JPEG": (8,), "WEBP": (8,), "TIFF": (16, 8)}
"""Bits per channel that each format takes, the default first."""
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
_STRIP_ROWS = 64


def save(
    path: str | os.PathLike[str],
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    settings: Mapping[str, object] | None = None,
    quality: int = 95,
    bits: int | None = None,
) -> Path:
    """Write ``pixels`` ([1, 3, H, W] or [3, H, W], float RGB, clamped to 0..1) and return the path.

    The suffix chooses the format: .png (``bits`` 8 or 16), .jpg/.jpeg, .webp, .tif/.tiff (16 bits unless ``bits=8``).
    ``alpha`` ([1, 1, H, W], [1, H, W] or [H, W]) is put back; a JPEG, which has none, gets a white ground.
    ``quality`` (1 to 100) is for JPEG and WebP; 100 makes a WebP lossless. An sRGB profile is embedded, and
    ``settings`` as JSON (``read_settings`` reads them back). The same input gives the same bytes.

    The file is written beside its place and renamed: whatever goes wrong, nothing half-written is left.
    Raises UsageError for an argument that makes no sense, ImageError for pixels that are not finite and for a file that
    cannot be written.
    """
    path, bits = check_target(path, bits=bits, quality=quality)
    kind = _FORMATS[path.suffix.lower()]
    rgb = _channels_last("pixels", pixels, 3)
    opacity = None if alpha is None else _channels_last("alpha", alpha, 1)
    if opacity is not None and opacity.shape[:2] != rgb.shape[:2]:
        raise UsageError(f"save: expected alpha of the pixels' size {rgb.shape[:2]}, got {opacity.shape[:2]}")
    if max(rgb.shape[:2]) > _LONGEST_SIDE.get(kind, max(rgb.shape[:2])):
        raise ImageError(
            f"{path}: {kind} holds at most {_LONGEST_SIDE[kind]} pixels a side, "
            f"got {rgb.shape[1]} x {rgb.shape[0]}; save as .png or .tif"
        )
    if opacity is not None and kind == "JPEG":
        rgb, opacity = rgb * opacity + (1 - opacity), None
    levels = _levels(rgb if opacity is None else np.concatenate([rgb, opacity], axis=2), bits)
    text = None if settings is None else to_json(settings)
    try:
        _write(path, _encoded(kind, levels, text, quality))
    except (OSError, ValueError, struct.error) as error:
        raise ImageError(f"{path}: cannot be written ({_reason(error)})") from error
    return path


def check_target(path: str | os.PathLike[str], *, bits: int | None = None, quality: int = 95) -> tuple[Path, int]:
    """Return the path and its bits per channel if ``save`` could write there, so that a long run can ask beforehand.

    Raises UsageError for an unknown suffix or a number out of range, ImageError for a folder that is missing or closed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise UsageError(f"{path}: expected a name ending in {known}, got {suffix!r}{nearest(suffix, _FORMATS)}")
    depths = _BITS[_FORMATS[suffix]]
    if bits is not None and bits not in depths:
        raise UsageError(f"bits: expected {' or '.join(map(str, sorted(depths)))} for {suffix}, got {bits!r}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"quality: expected a whole number from 1 to 100, got {quality!r}")
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; expected the name of an image file")
        if not path.parent.is_dir():
            raise ImageError(f"{path}: there is no folder {path.parent}; expected one that exists")
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({_reason(error)})") from error
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"{path}: no permission to write in {path.parent}")
    return path, depths[0] if bits is None else bits


def _channels_last(name: str, tensor: Tensor, channels: int) -> NDArray[np.float32]:
    """[H, W, channels], clamped to 0..1."""
    shape = tuple(tensor.shape)
    *leading, height, width = (1, 1, *shape) if len(shape) == 2 else shape if len(shape) > 2 else (0, 0, 0)
    if leading not in ([channels], [1, channels]) or 0 in (height, width) or not tensor.is_floating_point():
        raise UsageError(f"save: expected {name} as floats [1, {channels}, H, W], got {tensor.dtype} of shape {shape}")
    values: NDArray[np.float32] = (
        tensor.detach().to("cpu").float().reshape(channels, height, width).permute(1, 2, 0).numpy()
    )
    if not np.isfinite(values).all():
        raise ImageError(f"save: {name} holds values that are not finite (NaN or infinite); expected 0..1")
    return values.clip(0, 1)


def _levels(values: NDArray[np.float32], bits: int) -> NDArray[np.unsignedinteger]:
    """0..1 to whole levels, rounded to nearest."""
    rounded: NDArray[np.float32] = values * np.float32(2**bits - 1) + np.float32(0.5)
    return rounded.astype(np.uint16) if bits == 16 else rounded.astype(np.uint8)


def _encoded(kind: str, levels: NDArray[np.unsignedinteger], text: str | None, quality: int) -> bytes:
    """The file's bytes. Pillow's writers go to memory: on a disk they lose the reason of a failure."""
    if levels.dtype == np.uint16:
        return _png_16(levels, text) if kind == "PNG" else _tiff_16(levels, text)
    image = Image.fromarray(levels)
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, "PNG", icc_profile=srgb_profile(), pnginfo=_png_text(text))
        return buffer.getvalue()
    exif = Image.Exif()
    if text is not None:
        exif[ExifTags.Base.ImageDescription] = MARK + text
    if kind == "JPEG":
        # From 90 on, colour at full resolution: what subsampling loses is seen at the borders of brush strokes.
        subsampling = 0 if quality >= 90 else 2
        image.save(buffer, "JPEG", icc_profile=srgb_profile(), exif=exif, quality=quality, subsampling=subsampling)
    elif kind == "WEBP":
        image.save(
            buffer, "WEBP", icc_profile=srgb_profile(), exif=exif, quality=quality, lossless=quality == 100, exact=True
        )
    else:
        image.save(buffer, "TIFF", icc_profile=srgb_profile(), exif=exif, compression="tiff_adobe_deflate")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk; expected room for the file"
    return error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())


def _png_text(text: str | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt(KEY, text)
    return info


def _png_16(levels: NDArray[np.unsignedinteger], text: str | None) -> bytes:
    """16-bit PNG, which Pillow writes for grey only. Chunks as in the PNG specification (third edition), section 11."""
    height, width, bands = levels.shape
    rows = np.ascontiguousarray(levels, ">u2").view(np.uint8).reshape(height, -1)
    # Each row is stored as its difference from the one above: filter 2, "Up".
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    buffer = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    buffer.seek(0, io.SEEK_END)
    colour_type = {3: 2, 4: 6}[bands]
    PngImagePlugin.putchunk(buffer, b"IHDR", struct.pack(">2I5B", width, height, 16, colour_type, 0, 0, 0))
    PngImagePlugin.putchunk(buffer, b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))
    for name, data, _ in _png_text(text).chunks:
        PngImagePlugin.putchunk(buffer, name, data)
    PngImagePlugin.putchunk(buffer, b"IDAT", zlib.compress(filtered.tobytes(), 6))
    PngImagePlugin.putchunk(buffer, b"IEND")
    return buffer.getvalue()


def _tiff_16(levels: NDArray[np.unsignedinteger], text: str | None) -> bytes:
    """16-bit colour TIFF, which Pillow does not write, though its directory of tags does.

    Strips of rows, horizontal differences (TIFF 6.0, section 14), deflate.
    """
    height, width, bands = levels.shape
    differences = levels.astype("<u2")
    differences[:, 1:] -= levels[:, :-1]
    strips = [zlib.compress(differences[y : y + _STRIP_ROWS].tobytes(), 6) for y in range(0, height, _STRIP_ROWS)]
    lengths = [len(strip) for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    tags[TiffImagePlugin.IMAGEWIDTH] = width
    tags[TiffImagePlugin.IMAGELENGTH] = height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (16,) * bands
    tags[TiffImagePlugin.COMPRESSION] = 8
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = bands
    tags[TiffImagePlugin.ROWSPERSTRIP] = _STRIP_ROWS
    tags[TiffImagePlugin.PREDICTOR] = 2
    tags[TiffImagePlugin.ICCPROFILE] = srgb_profile()
    if bands == 4:
        tags[TiffImagePlugin.EXTRASAMPLES] = 2
    if text is not None:
        tags[TiffImagePlugin.IMAGEDESCRIPTION] = MARK + text
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = tuple(lengths)
    # Counted from the end of the directory: Pillow adds where that is.
    tags[TiffImagePlugin.STRIPOFFSETS] = tuple(sum(lengths[:i]) for i in range(len(lengths)))
    buffer = io.BytesIO()
    tags.save(buffer)
    return buffer.getvalue() + b"".join(strips)
