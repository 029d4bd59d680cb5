"""``save``: write a tensor to an image file atomically, with a color profile and settings."""

from __future__ import annotations

import errno
import io
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, BinaryIO, overload

import numpy as np
from torch import Tensor

from fastnst.errors import ImageError, UsageError
from fastnst.files import WrittenElsewhere, destination, replacing
from fastnst.images.encoding import LevelStrips, encode, write_png_16, write_tiff
from fastnst.images.metadata import to_json
from fastnst.images.targets import Target, check_target, file_target, kind_of

_WITHOUT_ALPHA = ("JPEG", "BMP")
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}


@overload
def save(
    path: str | os.PathLike[str],
    pixels: Tensor,
    *,
    alpha: Tensor | None = ...,
    settings: Mapping[str, object] | None = ...,
    quality: int = ...,
    bits: int | None = ...,
    format: str | None = ...,
    parents: bool = ...,
) -> Path: ...
@overload
def save(
    path: IO[bytes],
    pixels: Tensor,
    *,
    alpha: Tensor | None = ...,
    settings: Mapping[str, object] | None = ...,
    quality: int = ...,
    bits: int | None = ...,
    format: str | None = ...,
) -> None: ...
def save(
    path: str | os.PathLike[str] | IO[bytes],
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    settings: Mapping[str, object] | None = None,
    quality: int = 95,
    bits: int | None = None,
    format: str | None = None,
    parents: bool = False,
) -> Path | None:
    """Write an image to a file. The same input gives the same bytes.

    An sRGB profile is embedded, except in JPEG 2000, which declares sRGB by an enumerated value, and BMP. TIFF and
    16-bit PNG are encoded in strips, with the memory of one strip; a TIFF of more than 4 GB of samples is a BigTIFF.
    The file is written under a temporary name and renamed, so that errors leave no partial file. The target of a
    symbolic link is replaced, not the link. A file that cannot be renamed over is overwritten.

    Args:
        path: the file, whose suffix determines the format: .png, .jpg, .jpeg, .webp, .tif, .tiff, .avif, .jp2 or .bmp.
            Or a file object that is open for writing bytes, such as ``io.BytesIO()``: the encoded file is written at
            its position, in one piece.
        pixels: ``[1, 3, H, W]`` or ``[3, H, W]``, floating-point RGB, clamped to 0..1.
        alpha: ``[1, 1, H, W]``, ``[1, H, W]`` or ``[H, W]``; JPEG and BMP, without alpha, get a white background.
        settings: stored as JSON for :func:`read_settings`, except in BMP.
        quality: 1 to 100, for JPEG, WebP and AVIF; 100 makes WebP lossless. JPEG 2000 is always lossless.
        bits: bits per channel: 8 (default) or 16 for PNG, 16 (default) or 8 for TIFF, 8 for others.
        format: the format instead of the suffix: PNG, JPEG, WEBP, TIFF, AVIF, JPEG2000 or BMP, or a suffix without its
            dot, in either case. A file object without a name needs it.
        parents: whether to create missing folders.

    Returns:
        The path; None for a file object.

    Raises:
        UsageError: an invalid argument.
        ImageError: pixels that are not finite, or a file that cannot be written.

    Example:
        >>> import io, tempfile, torch
        >>> from fastnst import images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     images.save(f"{folder}/gray.tif", torch.full((1, 3, 4, 4), 0.5)).name
        'gray.tif'
        >>> file = io.BytesIO()
        >>> images.save(file, torch.full((1, 3, 4, 4), 0.5), format="PNG")
        >>> images.load(file).size
        (4, 4)
    """
    text = None if settings is None else to_json(settings)
    if not isinstance(path, (str, os.PathLike)):
        target = file_target(path, format, bits, quality)
        buffer = io.BytesIO()
        _encode(buffer, target.kind, _strips(target, pixels, alpha), text, quality)
        _write_out(path, target.name, buffer.getbuffer())
        return None
    path, bits = check_target(path, bits=bits, quality=quality, format=format, parents=parents)
    target = Target(path, kind_of(path, format), bits)
    strips = _strips(target, pixels, alpha)
    try:
        if parents:
            destination(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            _encode(stream, target.kind, strips, text, quality)
    except (OSError, ValueError, struct.error) as error:
        raise ImageError(f"{path}: cannot be written ({_reason(error)})") from error
    return path


def _strips(target: Target, pixels: Tensor, alpha: Tensor | None) -> LevelStrips:
    name, kind, bits = target
    rgb = _planes("pixels", pixels, 3)
    opacity = None if alpha is None else _planes("alpha", alpha, 1)
    height, width = rgb.shape[1:]
    if opacity is not None and opacity.shape[1:] != rgb.shape[1:]:
        raise UsageError(f"save: expected alpha of the pixels' size {(height, width)}, got {tuple(opacity.shape[1:])}")
    if max(height, width) > _LONGEST_SIDE.get(kind, max(height, width)):
        raise ImageError(
            f"{name}: {kind} holds at most {_LONGEST_SIDE[kind]} pixels a side, "
            f"got {width} x {height}; save as .png or .tif"
        )
    return LevelStrips(rgb, opacity, bits, flatten=kind in _WITHOUT_ALPHA)


def _encode(stream: BinaryIO, kind: str, strips: LevelStrips, text: str | None, quality: int) -> None:
    if kind == "TIFF":
        write_tiff(stream, strips, text)
    elif strips.bits == 16:
        write_png_16(stream, strips, text)
    else:
        stream.write(encode(kind, np.concatenate(list(strips)), text, quality))


def _write_out(file: IO[bytes], name: Path, data: memoryview) -> None:
    """Write everything; an unbuffered file may take a part at a time."""
    try:
        while len(data):
            written = file.write(data)
            if written == 0:
                raise OSError(errno.EIO, "it takes no more bytes")
            data = data[len(data) if written is None else written :]  # a wrapper of a file may not say
    except TypeError as error:
        raise UsageError(f'{name}: is a file of text; expected one of bytes, opened with mode "wb"') from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be written ({_reason(error)})") from error


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
