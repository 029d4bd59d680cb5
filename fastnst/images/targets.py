"""Where :func:`fastnst.images.save` writes: formats by suffix and by name, and what each can hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, NamedTuple

from PIL import features

from fastnst.errors import ImageError, UsageError, nearest
from fastnst.files import obstacle

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
_KINDS = tuple(dict.fromkeys(_FORMATS.values()))
_BITS = {"PNG": (8, 16), "TIFF": (16, 8)}
"""Bits per channel of formats with a choice, the default first. Other formats have 8."""
_OPTIONAL_CODECS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
"""Formats that Pillow may have been built without, with Pillow's names of their codecs."""


class Target(NamedTuple):
    """What is written: ``name`` stands for the file in errors."""

    name: Path
    kind: str
    bits: int


def check_target(
    path: str | os.PathLike[str],
    *,
    bits: int | None = None,
    quality: int = 95,
    format: str | None = None,
    parents: bool = False,
) -> tuple[Path, int]:
    """Check before a long run that :func:`save` can write to ``path``.

    Args:
        path: as for :func:`save`.
        bits: as for :func:`save`.
        quality: as for :func:`save`.
        format: as for :func:`save`.
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
    bits = _check(path, kind_of(path, format), bits, quality)
    reason = obstacle(path, parents=parents)
    if reason is not None:
        raise ImageError(f"{path}: {reason}")
    return path, bits


def file_target(file: object, format: str | None = None, bits: int | None = None, quality: int = 95) -> Target:
    """Check that :func:`save` can write to a file object, and return its name, format and bits per channel."""
    if not hasattr(file, "write"):
        raise UsageError(f"save: expected a path or a file object open for writing, got {type(file).__name__}")
    name = getattr(file, "name", None)
    path = Path(name) if isinstance(name, str) and name else Path("the file object")
    if format is None and not path.suffix:
        raise UsageError(f"format: the name of {path} says none; expected {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
    kind = kind_of(path, format)
    return Target(path, kind, _check(path, kind, bits, quality))


def kind_of(path: Path, format: str | None) -> str:
    """The format by its name, or by the suffix of the path."""
    if format is not None:
        key = format.upper() if isinstance(format, str) else format
        if key in _KINDS:
            return key
        kind = _FORMATS.get(f".{key}".lower())
        if kind is None:
            raise UsageError(f"format: expected {', '.join(_KINDS[:-1])} or {_KINDS[-1]}, got {format!r}")
        return kind
    suffix = path.suffix.lower()
    if suffix == ".gif":
        raise UsageError(f"{path}: GIF is limited to 256 colors; expected a name ending in .png")
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise UsageError(f"{path}: expected a name ending in {known}, got {suffix!r}{nearest(suffix, _FORMATS)}")
    return _FORMATS[suffix]


def _check(path: Path, kind: str, bits: int | None, quality: int) -> int:
    """Check that a format can be written so, and return its bits per channel."""
    depths = _BITS.get(kind, (8,))
    if bits is not None and bits not in depths:
        of = path.suffix.lower() if _FORMATS.get(path.suffix.lower()) == kind else kind
        raise UsageError(f"bits: expected {' or '.join(map(str, sorted(depths)))} for {of}, got {bits!r}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"quality: expected a whole number from 1 to 100, got {quality!r}")
    if kind in _OPTIONAL_CODECS and not features.check(_OPTIONAL_CODECS[kind]):
        raise ImageError(f"{path}: this Pillow does not support {kind}; expected a name ending in .png")
    return depths[0] if bits is None else bits


def has_depths(path: str | os.PathLike[str] | IO[bytes], format: str | None = None) -> bool:
    """Whether the format has a choice of bits per channel. Errors as :func:`save`.

    Example:
        >>> has_depths("picture.png"), has_depths("picture.jpg")
        (True, False)
    """
    if not isinstance(path, (str, os.PathLike)):
        return file_target(path, format).kind in _BITS
    return kind_of(Path(path), format) in _BITS
