"""ICC color profiles: images are converted to sRGB when read, and an sRGB profile is embedded when they are written.

8-bit images are converted by LittleCMS through Pillow, which supports 8 bits only. 16-bit images are converted here if
their profile consists of a matrix and tone curves, as those of common RGB working spaces do, and through 8 bits if it
consists of tables. Tags and formulas: ICC.1:2022, sections 9 and 10, and annex F for the matrix model.
"""

from __future__ import annotations

import io
import struct
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_LEVELS = 65536


@cache
def srgb_profile() -> bytes:
    """Return an sRGB profile with a constant creation date, so that files are reproducible."""
    profile = bytearray(_srgb().tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(profile)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an 8-bit ``image`` without alpha to mode RGB in sRGB.

    A profile that is invalid or of another color space than the image is ignored, and so is one that is equivalent to
    sRGB, to keep the pixels exact.
    """
    if image.mode == "LAB":
        return _lab_to_srgb().apply(image)
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    transform = _transform(profile, image.mode)
    if transform is not None:
        try:
            return transform.apply(image)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image.convert("RGB")


def to_srgb_16(pixels: NDArray[np.uint16], profile: bytes | None) -> NDArray[np.float32]:
    """Convert 16-bit ``pixels`` [H, W, 3] or [H, W, 1] to float32 RGB [H, W, 3] in 0..1, sRGB."""
    channels = pixels.shape[2]
    if profile is None or _transform(profile, "L" if channels == 1 else "RGB") is None:
        return _three_channels(pixels.astype(np.float32) / np.float32(_LEVELS - 1))
    model = _model(profile, channels)
    if model is None:
        return _through_8_bits(pixels, profile)
    linear = np.stack([curve[pixels[..., i]] for i, curve in enumerate(model.curves)], axis=-1)
    if model.matrix is not None:
        linear = linear @ model.matrix
    return _three_channels(_encode_srgb(linear))


def _three_channels(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _through_8_bits(pixels: NDArray[np.uint16], profile: bytes) -> NDArray[np.float32]:
    eight = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    converted = to_srgb(Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight), profile)
    values = np.asarray(converted, np.float32)
    values /= 255
    return values


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=4)  # images are converted in strips, and creating a transform takes longer than a strip
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return a transform from ``mode`` to sRGB; None if the profile is absent, invalid, of another mode or sRGB."""
    if not profile:
        return None
    try:
        parsed = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = {"L": "GRAY"}.get(mode, mode)
        if parsed.profile.xcolor_space.strip() != space:
            return None
        transform = ImageCms.ImageCmsTransform(parsed, _srgb(), mode, "RGB")
        probe = _probe(mode)
        change = np.asarray(transform.apply(probe), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    # Profiles of sRGB differ from one another by one level, because their tables are rounded.
    return None if mode != "CMYK" and np.abs(change).max() <= 1 else transform


@cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.ImageCmsTransform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), _srgb(), "LAB", "RGB")


def _probe(mode: str) -> Image.Image:
    """Return a small image whose colors cover the space of ``mode``."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    grid = np.stack(np.meshgrid(*[steps] * 3, indexing="ij"), axis=-1).reshape(27, 27, 3)
    return Image.fromarray(grid).convert(mode)


def _colorants(profile: ImageCms.ImageCmsProfile) -> NDArray[np.float64]:
    """Return the matrix from linear RGB to XYZ (D50)."""
    core: Any = profile.profile
    return np.stack([core.red_colorant[0], core.green_colorant[0], core.blue_colorant[0]], axis=1)


def _encode_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply the sRGB transfer function (IEC 61966-2-1), clipping colors outside sRGB."""
    linear = linear.clip(0, 1)
    curved = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    encoded: NDArray[np.float32] = np.where(linear <= 0.0031308, np.float32(12.92) * linear, curved)
    return encoded.clip(0, 1)


class _Model(NamedTuple):
    """A gray or a matrix profile.

    Attributes:
        curves: the tone curve of each channel, 65536 values.
        matrix: the transposed matrix [3, 3] from linear colors to linear sRGB; None for gray.
    """

    curves: list[NDArray[np.float32]]
    matrix: NDArray[np.float32] | None


@lru_cache(maxsize=4)
def _model(profile: bytes, channels: int) -> _Model | None:
    """Parse a gray or a matrix profile; None for other kinds."""
    parsed = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    core: Any = parsed.profile
    if channels == 3 and None in (core.red_colorant, core.green_colorant, core.blue_colorant):
        return None
    try:
        tags = _tags(profile)
        if b"A2B0" in tags:
            return None
        curves = [_curve(tags[name]) for name in ([b"kTRC"] if channels == 1 else [b"rTRC", b"gTRC", b"bTRC"])]
    except (KeyError, struct.error, ValueError, IndexError):
        return None
    if channels == 1:
        return _Model(curves, None)
    return _Model(curves, (np.linalg.inv(_colorants(_srgb())) @ _colorants(parsed)).T.astype(np.float32))


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 100))]
    return {name: profile[start : start + length] for name, start, length in entries}


def _curve(tag: bytes) -> NDArray[np.float32]:
    x = np.linspace(0, 1, _LEVELS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        values = np.frombuffer(tag, ">u2", count, 12)
        if count > 1:
            return np.interp(x, np.linspace(0, 1, count), values / 65535).astype(np.float32)
        return (x ** (values[0] / 256 if count else 1.0)).astype(np.float32)
    if tag[:4] != b"para":
        raise ValueError("neither a table nor a formula")
    (kind,) = struct.unpack_from(">H", tag, 8)
    g, *rest = [v / 65536 for v in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
    # Table 68 of ICC.1:2022: every kind is (a x + b)^g + e for x >= d, and c x + f below.
    a, b, c, d, e, f = rest + [1.0, 0.0, 0.0, 0.0, 0.0, 0.0][len(rest) :]
    if kind in (1, 2):
        c, d, e, f = 0.0, -b / a if a else 0.0, c, c
    y: NDArray[np.float64] = np.where(x >= d, (a * x + b).clip(0) ** g + e, c * x + f)
    return y.clip(0, 1).astype(np.float32)
