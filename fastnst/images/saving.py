"""``save``: a tensor to an image file, with its colour profile and settings, whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, features
from torch import Tensor

from fastnst.errors import ImageError, UsageError, nearest
from fastnst.files import WrittenElsewhere, destination, obstacle, replacing
from fastnst.images.colour import srgb_profile
from fastnst.images.settings import KEY, MARK, to_json

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".jp2": "JPEG2000",
    ".bmp": "BMP",
}
_BITS = {"PNG": (8, 16), "TIFF": (16, 8)}
"""Bits per channel that a format takes, the default first, where those are not 8 alone."""
_NO_ALPHA = ("JPEG", "BMP")
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
_BUILT = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
"""What Pillow may have been built without, by its name for it."""
_STRIP_ROWS = 64
_LARGEST_TIFF = 2**32 - 2**25
"""Bytes of samples that a TIFF holds for certain: its offsets have 32 bits, and deflate may add a little to noise."""


def save(
    path: str | os.PathLike[str],
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    settings: Mapping[str, object] | None = None,
    quality: int = 95,
    bits: int | None = None,
    parents: bool = False,
) -> Path:
    """Write ``pixels`` ([1, 3, H, W] or [3, H, W], float RGB, clamped to 0..1) and return the path.

    The suffix chooses the format: .png (``bits`` 8 or 16), .tif/.tiff (16 bits unless ``bits=8``), .jpg/.jpeg, .webp,
    .avif, .jp2, .bmp (8 bits). ``alpha`` ([1, 1, H, W], [1, H, W] or [H, W]) is put back; JPEG and BMP, which have
    none, get a white ground. ``quality`` (1 to 100) is for JPEG, WebP and AVIF; 100 makes a WebP lossless, as JPEG 2000
    always is. An sRGB profile is embedded, but in JPEG 2000, which says sRGB by a number, and BMP, which says nothing;
    and ``settings`` as JSON (``read_settings`` reads them back), but in BMP. The same input gives the same bytes.

    TIFF and 16-bit PNG are made strip by strip: they take the memory of a strip beside the picture. A TIFF of more than
    4 GB of samples becomes a BigTIFF.

    The file is written beside its place and renamed: whatever goes wrong, nothing half-written is left. A symbolic link
    stays, and its target is written. A file that cannot be renamed over, because it is mounted or its folder is closed,
    is written over. ``parents`` makes folders that are missing.

    Raises UsageError for an argument that makes no sense, ImageError for pixels that are not finite and for a file that
    cannot be written.
    """
    path, bits = check_target(path, bits=bits, quality=quality, parents=parents)
    kind = _FORMATS[path.suffix.lower()]
    rgb = _planes("pixels", pixels, 3)
    opacity = None if alpha is None else _planes("alpha", alpha, 1)
    height, width = rgb.shape[1:]
    if opacity is not None and opacity.shape[1:] != rgb.shape[1:]:
        raise UsageError(f"save: expected alpha of the pixels' size {(height, width)}, got {tuple(opacity.shape[1:])}")
    if max(height, width) > _LONGEST_SIDE.get(kind, max(height, width)):
        raise ImageError(
            f"{path}: {kind} holds at most {_LONGEST_SIDE[kind]} pixels a side, "
            f"got {width} x {height}; save as .png or .tif"
        )
    strips = _Strips(rgb, opacity, bits, ground=kind in _NO_ALPHA)
    text = None if settings is None else to_json(settings)
    try:
        if parents:
            destination(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            if kind == "TIFF":
                _write_tiff(temporary, strips, text)
            elif bits == 16:
                _write_png_16(temporary, strips, text)
            else:
                temporary.write_bytes(_encoded(kind, np.concatenate(list(strips)), text, quality))
    except (OSError, ValueError, struct.error) as error:
        raise ImageError(f"{path}: cannot be written ({_reason(error)})") from error
    return path


def check_target(
    path: str | os.PathLike[str], *, bits: int | None = None, quality: int = 95, parents: bool = False
) -> tuple[Path, int]:
    """Return the path and its bits per channel if ``save`` could write there, so that a long run can ask beforehand.

    ``parents`` as for ``save``. Raises UsageError for an unknown suffix or a number out of range, ImageError for a
    folder that is missing or closed, a pipe, a device, and a format that Pillow was built without.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        raise UsageError(f"{path}: a GIF holds 256 colours, too few for a picture; expected a name ending in .png")
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise UsageError(f"{path}: expected a name ending in {known}, got {suffix!r}{nearest(suffix, _FORMATS)}")
    kind = _FORMATS[suffix]
    depths = _BITS.get(kind, (8,))
    if bits is not None and bits not in depths:
        raise UsageError(f"bits: expected {' or '.join(map(str, sorted(depths)))} for {suffix}, got {bits!r}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"quality: expected a whole number from 1 to 100, got {quality!r}")
    if kind in _BUILT and not features.check(_BUILT[kind]):
        raise ImageError(f"{path}: this Pillow was built without {kind}; expected a name ending in .png")
    reason = obstacle(path, parents=parents)
    if reason is not None:
        raise ImageError(f"{path}: {reason}")
    return path, depths[0] if bits is None else bits


def _planes(name: str, tensor: Tensor, channels: int) -> Tensor:
    """A view [channels, H, W]."""
    shape = tuple(tensor.shape)
    *leading, height, width = (1, 1, *shape) if len(shape) == 2 else shape if len(shape) > 2 else (0, 0, 0)
    if leading not in ([channels], [1, channels]) or 0 in (height, width) or not tensor.is_floating_point():
        raise UsageError(f"save: expected {name} as floats [1, {channels}, H, W], got {tensor.dtype} of shape {shape}")
    return tensor.detach().reshape(channels, height, width)


@dataclass(frozen=True)
class _Strips:
    """The whole levels of a picture, [rows, W, bands], made strip by strip; with ``ground``, on white without alpha."""

    rgb: Tensor
    opacity: Tensor | None
    bits: int
    ground: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.rgb.shape[1:], 3 if self.opacity is None or self.ground else 4)

    def __iter__(self) -> Iterator[NDArray[np.unsignedinteger]]:
        for top in range(0, self.rgb.shape[1], _STRIP_ROWS):
            values = _clamped("pixels", self.rgb[:, top : top + _STRIP_ROWS])
            if self.opacity is not None:
                seen = _clamped("alpha", self.opacity[:, top : top + _STRIP_ROWS])
                values = values * seen + (1 - seen) if self.ground else np.concatenate([values, seen], axis=2)
            yield _levels(values, self.bits)


def _clamped(name: str, planes: Tensor) -> NDArray[np.float32]:
    """[rows, W, channels] in 0..1."""
    values: NDArray[np.float32] = planes.to("cpu").float().permute(1, 2, 0).numpy()
    if not np.isfinite(values).all():
        raise ImageError(f"save: {name} holds values that are not finite (NaN or infinite); expected 0..1")
    return values.clip(0, 1)


def _levels(values: NDArray[np.float32], bits: int) -> NDArray[np.unsignedinteger]:
    """0..1 to whole levels, rounded to nearest."""
    rounded: NDArray[np.float32] = values * np.float32(2**bits - 1) + np.float32(0.5)
    return rounded.astype(np.uint16) if bits == 16 else rounded.astype(np.uint8)


def _encoded(kind: str, levels: NDArray[np.unsignedinteger], text: str | None, quality: int) -> bytes:
    """A file of 8 bits. Pillow's writers go to memory: on a disk they lose the reason of a failure."""
    noted = None if text is None else MARK + text
    exif = Image.Exif()
    if noted is not None:
        exif[ExifTags.Base.ImageDescription] = noted
    # From 90 on, colour at full resolution: what subsampling loses is seen at the borders of brush strokes.
    fine = quality >= 90
    options: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": _png_text(text)},
        "JPEG": {"exif": exif, "quality": quality, "subsampling": 0 if fine else 2},
        "WEBP": {"exif": exif, "quality": quality, "lossless": quality == 100, "exact": True},
        "AVIF": {"exif": exif, "quality": quality, "subsampling": "4:4:4" if fine else "4:2:0"},
        "JPEG2000": {"comment": noted or "", "no_jp2": False},
        "BMP": {},
    }
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind, icc_profile=srgb_profile(), **options[kind])
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full and not isinstance(error, WrittenElsewhere):
        return "no space left on the disk; expected room for the file"
    return error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())


def _png_text(text: str | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt(KEY, text)
    return info


def _write_png_16(path: Path, strips: _Strips, text: str | None) -> None:
    """16-bit PNG, which Pillow writes for grey only. Chunks as in the PNG specification (third edition), section 11."""
    height, width, bands = strips.shape
    with path.open("wb") as stream:
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


def _write_tiff(path: Path, strips: _Strips, text: str | None) -> None:
    """TIFF, or BigTIFF where the samples would not fit in 4 GB: strips of rows, differences along them, deflate.

    The differences (TIFF 6.0, section 14) are taken here: tifffile would want whole pictures to take them of.
    """
    from tifffile import TiffWriter

    height, width, bands = strips.shape
    samples = height * width * bands * strips.bits // 8
    with path.open("wb") as stream, TiffWriter(stream, bigtiff=samples > _LARGEST_TIFF, byteorder="<") as writer:
        writer.write(
            (_packed(levels) for levels in strips),
            shape=strips.shape,
            dtype=f"<u{strips.bits // 8}",
            photometric="rgb",
            planarconfig="contig",
            extrasamples=["unassalpha"] if bands == 4 else None,
            rowsperstrip=min(_STRIP_ROWS, height),
            compression="adobe_deflate",
            predictor=True,
            iccprofile=srgb_profile(),
            description=None if text is None else MARK + text,
            metadata=None,
            software=False,
        )


def _packed(levels: NDArray[np.unsignedinteger]) -> bytes:
    differences = levels.astype(levels.dtype.newbyteorder("<"))
    differences[:, 1:] -= levels[:, :-1]
    return zlib.compress(differences.tobytes(), 6)
