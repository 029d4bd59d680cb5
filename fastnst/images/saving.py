"""``save``: write a tensor to an image file atomically, with a color profile and settings."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import features
from torch import Tensor

from fastnst.errors import ImageError, UsageError, nearest
from fastnst.files import WrittenElsewhere, destination, obstacle, replacing
from fastnst.images.encoding import LevelStrips, encode, write_png_16, write_tiff
from fastnst.images.metadata import to_json

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
"""Bits per channel of formats with a choice, the default first. Other formats have 8."""
_WITHOUT_ALPHA = ("JPEG", "BMP")
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
_OPTIONAL_CODECS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
"""Formats that Pillow may have been built without, with Pillow's names of their codecs."""


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
    """Write an image to a file. The same input gives the same bytes.

    An sRGB profile is embedded, except in JPEG 2000, which declares sRGB by an enumerated value, and BMP. TIFF and
    16-bit PNG are encoded in strips, with the memory of one strip; a TIFF of more than 4 GB of samples is a BigTIFF.
    The file is written under a temporary name and renamed, so that errors leave no partial file. The target of a
    symbolic link is replaced, not the link. A file that cannot be renamed over is overwritten.

    Args:
        path: the file. Its suffix determines the format: .png, .jpg, .jpeg, .webp, .tif, .tiff, .avif, .jp2 or .bmp.
        pixels: ``[1, 3, H, W]`` or ``[3, H, W]``, floating-point RGB, clamped to 0..1.
        alpha: ``[1, 1, H, W]``, ``[1, H, W]`` or ``[H, W]``; JPEG and BMP, without alpha, get a white background.
        settings: stored as JSON for :func:`read_settings`, except in BMP.
        quality: 1 to 100, for JPEG, WebP and AVIF; 100 makes WebP lossless. JPEG 2000 is always lossless.
        bits: bits per channel: 8 (default) or 16 for PNG, 16 (default) or 8 for TIFF, 8 for others.
        parents: whether to create missing folders.

    Returns:
        The path.

    Raises:
        UsageError: an invalid argument.
        ImageError: pixels that are not finite, or a file that cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from fastnst import images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     images.save(f"{folder}/gray.tif", torch.full((1, 3, 4, 4), 0.5)).name
        'gray.tif'
    """
    path, bits = check_target(path, bits=bits, quality=quality, parents=parents)
    strips = _strips(path, pixels, alpha, bits)
    text = None if settings is None else to_json(settings)
    try:
        if parents:
            destination(path).parent.mkdir(parents=True, exist_ok=True)
        _write(path, strips, text, quality)
    except (OSError, ValueError, struct.error) as error:
        raise ImageError(f"{path}: cannot be written ({_reason(error)})") from error
    return path


def _strips(path: Path, pixels: Tensor, alpha: Tensor | None, bits: int) -> LevelStrips:
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
    return LevelStrips(rgb, opacity, bits, flatten=kind in _WITHOUT_ALPHA)


def _write(path: Path, strips: LevelStrips, text: str | None, quality: int) -> None:
    kind = _FORMATS[path.suffix.lower()]
    with replacing(path) as temporary:
        if kind == "TIFF":
            write_tiff(temporary, strips, text)
        elif strips.bits == 16:
            write_png_16(temporary, strips, text)
        else:
            temporary.write_bytes(encode(kind, np.concatenate(list(strips)), text, quality))


def check_target(
    path: str | os.PathLike[str], *, bits: int | None = None, quality: int = 95, parents: bool = False
) -> tuple[Path, int]:
    """Check before a long run that :func:`save` can write to ``path``.

    Args:
        path: as for :func:`save`.
        bits: as for :func:`save`.
        quality: as for :func:`save`.
        parents: as for :func:`save`.

    Returns:
        The path and its number of bits per channel.

    Raises:
        UsageError: an unknown suffix, or a number out of range.
        ImageError: a folder that is missing or not writable, a pipe or a device, or a format that Pillow was built
            without.

    Example:
        >>> from fastnst import images
        >>> path, bits = images.check_target("picture.tif")
        >>> bits
        16
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        raise UsageError(f"{path}: GIF is limited to 256 colors; expected a name ending in .png")
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise UsageError(f"{path}: expected a name ending in {known}, got {suffix!r}{nearest(suffix, _FORMATS)}")
    kind = _FORMATS[suffix]
    depths = _BITS.get(kind, (8,))
    if bits is not None and bits not in depths:
        raise UsageError(f"bits: expected {' or '.join(map(str, sorted(depths)))} for {suffix}, got {bits!r}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"quality: expected a whole number from 1 to 100, got {quality!r}")
    if kind in _OPTIONAL_CODECS and not features.check(_OPTIONAL_CODECS[kind]):
        raise ImageError(f"{path}: this Pillow does not support {kind}; expected a name ending in .png")
    reason = obstacle(path, parents=parents)
    if reason is not None:
        raise ImageError(f"{path}: {reason}")
    return path, depths[0] if bits is None else bits


def has_depths(path: str | os.PathLike[str]) -> bool:
    """Whether the format of the suffix has a choice of bits per channel.

    Example:
        >>> has_depths("picture.png"), has_depths("picture.jpg")
        (True, False)
    """
    return _FORMATS.get(Path(path).suffix.lower()) in _BITS


def _planes(name: str, tensor: Tensor, channels: int) -> Tensor:
    """Return a view [channels, H, W]."""
    shape = tuple(tensor.shape)
    *leading, height, width = (1, 1, *shape) if len(shape) == 2 else shape if len(shape) > 2 else (0, 0, 0)
    if leading not in ([channels], [1, channels]) or 0 in (height, width) or not tensor.is_floating_point():
        raise UsageError(f"save: expected {name} as floats [1, {channels}, H, W], got {tensor.dtype} of shape {shape}")
    return tensor.detach().reshape(channels, height, width)


def _reason(error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full and not isinstance(error, WrittenElsewhere):
        return "no space left on the disk; expected room for the file"
    return error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
